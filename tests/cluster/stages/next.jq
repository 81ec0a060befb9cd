# The name of the pod's next stage, or nothing when the pod stays as it is.
# Every stage's selector asks this same question and compares the answer with
# its own name: that is why no two of them ever match the same pod.

def tag: split("@")[0] | split("/")[-1] | split(":") | if length > 1 then .[-1] else "" end;

def state:
  if .state.running then "running"
  elif .state.terminated then "ended"
  elif .state.waiting.reason == "CrashLoopBackOff" then "crashed"
  elif .state.waiting.reason == "ErrImagePull" then "pull-error"
  elif .state.waiting.reason == "ImagePullBackOff" then "pull-backoff"
  else "new" end;

def condition($type): first(.status.conditions[]? | select(.type == $type) | .status) // "Unknown";

# What the rules look at, for a container's specification and its status.
def container($status; $task):
  { tag: (.image | tag), state: ($status | state), restarts: ($status.restartCount // 0),
    ready: ($status.ready // false), task: $task };

def sidecar: .restartPolicy == "Always";

# An init container is over when it has ended well, or has started if it is one
# that runs along.
def over($status): if sidecar then $status.started == true else $status.state.terminated.exitCode == 0 end;

# The containers whose turn it is: the first init container that is not over;
# after the last one, all that are to run.
def active:
  . as $pod
  | (.spec.initContainers // []) as $inits
  | (.status.initContainerStatuses // []) as $initStatuses
  | if condition("Initialized") == "True" then
      ( range(.spec.containers | length) as $i
        | .spec.containers[$i] | container($pod.status.containerStatuses[$i]; $pod.spec.restartPolicy != "Always") ),
      ( range($inits | length) as $i
        | $inits[$i] | select(sidecar) | container($initStatuses[$i]; false) )
    else
      first( range($inits | length) as $i
        | $inits[$i] | select(over($initStatuses[$i]) | not) | container($initStatuses[$i]; sidecar | not) )
    end;

# The place of the first rule that fits a container.
def rule: @RULES@;

def gatesOpen: . as $pod | all(.spec.readinessGates[]?; .conditionType as $type | $pod | condition($type) == "True");

if .status.startTime == null then "start"
elif .status.phase == "Succeeded" or .status.phase == "Failed" then empty
else
  ([active | rule] | min) as $first
  | if $first != null then @NAMES@[$first]
    elif .spec.readinessGates and condition("ContainersReady") == "True"
      and (gatesOpen != (condition("Ready") == "True")) then "gates"
    else empty end
end
