package stages

// The states in which a rule may find a container. They are read off the
// container's status, so that the pod itself is the only memory there is.
const (
	isNew       = "new"          // waiting, nothing tried yet
	isRunning   = "running"      // running
	isCrashed   = "crashed"      // waiting: CrashLoopBackOff
	isPullError = "pull-error"   // waiting: ErrImagePull
	isEnded     = "ended"        // terminated
	isBackOff   = "pull-backoff" // waiting: ImagePullBackOff
)

// What a rule makes of a container.
const (
	// toFailed: exit code 1. The pod's restart policy decides whether that is
	// the container's end or one more turn of its crash loop.
	toFailed    = "failed"
	toPullError = "pull-error"
	toBackOff   = "pull-backoff"
	// toSettled: what a slow container becomes in the end, ready or completed.
	toSettled   = "settled"
	toCompleted = "completed"
)

// quickRestarts is the number of crashes that follow each other quickly, so
// that a test which waits for a few of them is short.
const quickRestarts = 5

// rule moves a container from one state to the next some time after the pod's
// last change.
type rule struct {
	// name is the stage's name in kwok and in its log.
	name string
	// tags of the image that the rule is about; none, which only a rule for tasks
	// may have, means all tags without a meaning of their own.
	tags []string
	from string
	// restarts limits the rule to a number of restarts so far.
	restarts restartRange
	// taskOnly limits the rule to containers that are meant to end: those of
	// pods that are not always restarted, and init containers.
	taskOnly bool
	// unsettled limits the rule to containers that toSettled has not reached.
	unsettled bool
	after     int // milliseconds
	to        string
	// overdue is the age of a running container, in seconds, from which the
	// rule takes effect along with any other; zero for never. It keeps a slow
	// container on time beside one that crashes every second.
	overdue int
	event   *event
}

type restartRange string

const (
	anyRestarts  restartRange = ""
	noRestarts   restartRange = "none"
	fewRestarts  restartRange = "few"  // fewer than quickRestarts
	manyRestarts restartRange = "many" // the others
)

// event is what the kubelet would report at the same moment.
type event struct {
	Type    string `json:"type"`
	Reason  string `json:"reason"`
	Message string `json:"message"`
}

// meaningfulTags are the tags that make a container do something other than
// run well.
var meaningfulTags = []string{"slow", "unready", "crash", "missing", "denied", "flaky", "fail", "hang"}

// rules in the order of their precedence: of all rules that fit a container of
// a pod, the first is the pod's next stage. Short ones come first, so that no
// container waits for another's long delay.
var rules = []rule{
	{
		name: "crash", tags: []string{"crash", "fail"}, from: isRunning, restarts: noRestarts,
		after: 300, to: toFailed,
		event: &event{"Warning", "BackOff", "Back-off restarting failed container"},
	},
	{
		name: "pull-fails", tags: []string{"missing", "denied"}, from: isNew,
		after: 300, to: toPullError,
		event: &event{"Warning", "Failed", "Error: ErrImagePull"},
	},
	{
		name: "task-completes", from: isRunning, taskOnly: true,
		after: 500, to: toCompleted,
	},
	{
		name: "pull-backs-off", tags: []string{"missing", "denied"}, from: isPullError,
		after: 1000, to: toBackOff,
		event: &event{"Warning", "Failed", "Error: ImagePullBackOff"},
	},
	{
		name: "crash-again", tags: []string{"crash", "fail", "flaky"}, from: isCrashed, restarts: fewRestarts,
		after: 1000, to: toFailed,
		event: &event{"Warning", "BackOff", "Back-off restarting failed container"},
	},
	{
		name: "slow-settles", tags: []string{"slow"}, from: isRunning, unsettled: true,
		after: 3000, to: toSettled, overdue: 3,
	},
	{
		name: "flaky-breaks", tags: []string{"flaky"}, from: isRunning, restarts: noRestarts,
		after: 4000, to: toFailed, overdue: 4,
		event: &event{"Warning", "BackOff", "Back-off restarting failed container"},
	},
	{
		name: "crash-later", tags: []string{"crash", "fail", "flaky"}, from: isCrashed, restarts: manyRestarts,
		after: 10000, to: toFailed,
		event: &event{"Warning", "BackOff", "Back-off restarting failed container"},
	},
}
