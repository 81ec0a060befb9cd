package stages

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// c is a container with an image; sidecar is an init container that runs along.
func c(name, image string) corev1.Container {
	return corev1.Container{Name: name, Image: image}
}

func sidecar(name, image string) corev1.Container {
	always := corev1.ContainerRestartPolicyAlways
	return corev1.Container{Name: name, Image: image, RestartPolicy: &always}
}

func podOf(policy corev1.RestartPolicy, inits, containers []corev1.Container) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "ns", UID: types.UID("uid-1"), Generation: 1},
		Spec: corev1.PodSpec{
			NodeName: "kwok-0", RestartPolicy: policy, InitContainers: inits, Containers: containers,
		},
		Status: corev1.PodStatus{Phase: corev1.PodPending, Conditions: []corev1.PodCondition{
			{Type: corev1.PodScheduled, Status: corev1.ConditionTrue},
		}},
	}
}

const (
	always    = corev1.RestartPolicyAlways
	never     = corev1.RestartPolicyNever
	onFailure = corev1.RestartPolicyOnFailure
)

// Each line: this pod looks like that so long after its binding. A container
// reads NAME:STATE, with a "+" when it is ready and xN after N restarts.
func TestPodsActOutTheirTags(t *testing.T) {
	type list = []corev1.Container
	const s = time.Second
	cases := []struct {
		promise string
		policy  corev1.RestartPolicy
		inits   list
		mains   list
		at      time.Duration
		want    string
	}{
		{"ok is ready at once", always, nil, list{c("a", "x:ok")}, 0, "Running Ready a:running+"},
		{"and stays so", always, nil, list{c("a", "x:ok")}, 60 * s, "Running Ready a:running+"},
		{"any tag is ok", always, nil, list{c("a", "x:v1.2.3")}, 0, "Running Ready a:running+"},
		{"no tag is ok", always, nil, list{c("a", "x")}, 0, "Running Ready a:running+"},
		{"a registry's port is no tag", always, nil, list{c("a", "localhost:5000/app")}, 0, "Running Ready a:running+"},
		{"a tag after a registry's port", always, nil, list{c("a", "localhost:5000/app:crash")}, s / 2, "Running a:CrashLoopBackOff x1"},
		{"a tag before a digest", always, nil, list{c("a", "r.test/app:crash@sha256:00ff")}, s / 2, "Running a:CrashLoopBackOff x1"},
		{"a digest alone is ok", always, nil, list{c("a", "r.test/app@sha256:00ff")}, s / 2, "Running Ready a:running+"},
		{"hang is ok where nothing ends", always, nil, list{c("a", "x:hang")}, 60 * s, "Running Ready a:running+"},

		{"slow is not ready at first", always, nil, list{c("a", "x:slow")}, 2 * s, "Running a:running"},
		{"slow is ready in the end", always, nil, list{c("a", "x:slow")}, 3 * s, "Running Ready a:running+"},
		{"unready never is", always, nil, list{c("a", "x:unready")}, 600 * s, "Running a:running"},

		{"crash is never ready before it crashes", always, nil, list{c("a", "x:crash")}, 0, "Running a:running"},
		{"crash crashes soon", always, nil, list{c("a", "x:crash")}, 300 * time.Millisecond, "Running a:CrashLoopBackOff x1"},
		{"and again each second", always, nil, list{c("a", "x:crash")}, 4300 * time.Millisecond, "Running a:CrashLoopBackOff x5"},
		{"then more slowly", always, nil, list{c("a", "x:crash")}, 14 * s, "Running a:CrashLoopBackOff x5"},
		{"but on and on", always, nil, list{c("a", "x:crash")}, 25 * s, "Running a:CrashLoopBackOff x7"},
		{"fail is crash where all is restarted", always, nil, list{c("a", "x:fail")}, s / 2, "Running a:CrashLoopBackOff x1"},

		{"flaky is ready", always, nil, list{c("a", "x:flaky")}, 3 * s, "Running Ready a:running+"},
		{"and then no longer", always, nil, list{c("a", "x:flaky")}, 4 * s, "Running a:CrashLoopBackOff x1"},
		{"and crashes again", always, nil, list{c("a", "x:flaky")}, 6 * s, "Running a:CrashLoopBackOff x3"},

		{"missing waits for its image", always, nil, list{c("a", "x:missing")}, 0, "Pending a:ContainerCreating"},
		{"missing is not found", always, nil, list{c("a", "x:missing")}, s / 2, "Pending a:ErrImagePull"},
		{"and is left alone", always, nil, list{c("a", "x:missing")}, 60 * s, "Pending a:ImagePullBackOff"},
		{"denied likewise", always, nil, list{c("a", "x:denied")}, 60 * s, "Pending a:ImagePullBackOff"},

		{"a task completes", never, nil, list{c("a", "x:ok")}, s / 2, "Succeeded a:Completed"},
		{"a task runs first", never, nil, list{c("a", "x:ok")}, s / 4, "Running Ready a:running+"},
		{"also when restarted on failure", onFailure, nil, list{c("a", "x:ok")}, s, "Succeeded a:Completed"},
		{"a slow task takes longer", never, nil, list{c("a", "x:slow")}, 2 * s, "Running Ready a:running+"},
		{"and completes", never, nil, list{c("a", "x:slow")}, 3 * s, "Succeeded a:Completed"},
		{"a failing task fails", never, nil, list{c("a", "x:fail")}, s, "Failed a:Error"},
		{"a crashing task fails", never, nil, list{c("a", "x:crash")}, s, "Failed a:Error"},
		{"a failing task is restarted on failure", onFailure, nil, list{c("a", "x:fail")}, 2 * s, "Running a:CrashLoopBackOff x2"},
		{"a flaky task fails later", never, nil, list{c("a", "x:flaky")}, 4 * s, "Failed a:Error"},
		{"a hanging task hangs", never, nil, list{c("a", "x:hang")}, 600 * s, "Running Ready a:running+"},
		{"a task without an image waits", never, nil, list{c("a", "x:missing")}, 60 * s, "Pending a:ImagePullBackOff"},
		{"one task of two fails", never, nil, list{c("a", "x:ok"), c("b", "x:fail")}, 2 * s, "Failed a:Completed b:Error"},
		{"one task of two hangs", never, nil, list{c("a", "x:hang"), c("b", "x:fail")}, 2 * s, "Running a:running+ b:Error"},

		{"only the bad container is bad", always, nil, list{c("a", "x:ok"), c("b", "x:crash")}, s / 2, "Running a:running+ b:CrashLoopBackOff x1"},
		{"a pod is as bad as its worst", always, nil, list{c("a", "x:crash"), c("b", "x:missing")}, 3 * s, "Pending a:CrashLoopBackOff x2 b:ImagePullBackOff"},
		{"crashes do not hold up a slow one", always, nil, list{c("a", "x:slow"), c("b", "x:crash")}, 3500 * time.Millisecond, "Running a:running+ b:CrashLoopBackOff x4"},

		{"init containers pass", always, list{c("i", "x:ok"), c("j", "x")}, list{c("a", "x:ok")}, 0, "Running Ready i:Completed+ j:Completed+ a:running+"},
		{"a slow one delays", always, list{c("i", "x:slow"), c("j", "x")}, list{c("a", "x:ok")}, 2 * s, "Pending i:running j:PodInitializing a:PodInitializing"},
		{"but not for ever", always, list{c("i", "x:slow"), c("j", "x")}, list{c("a", "x:ok")}, 3 * s, "Running Ready i:Completed+ j:Completed+ a:running+"},
		{"a crashing one blocks", always, list{c("i", "x:ok"), c("j", "x:crash")}, list{c("a", "x:ok")}, 2 * s, "Pending i:Completed+ j:CrashLoopBackOff x2 a:PodInitializing"},
		{"a missing one blocks", always, list{c("i", "x:missing")}, list{c("a", "x:ok")}, 2 * s, "Pending i:ImagePullBackOff a:PodInitializing"},
		{"a hanging one blocks", always, list{c("i", "x:hang")}, list{c("a", "x:ok")}, 60 * s, "Pending i:running a:PodInitializing"},
		{"a failing one fails a task", never, list{c("i", "x:fail")}, list{c("a", "x:ok")}, 2 * s, "Failed i:Error a:PodInitializing"},
		{"what follows has its own fate", always, list{c("i", "x:ok")}, list{c("a", "x:missing")}, 2 * s, "Pending i:Completed+ a:ImagePullBackOff"},

		{"a sidecar runs along", always, list{sidecar("i", "x:ok")}, list{c("a", "x:ok")}, 0, "Running Ready i:running+ a:running+"},
		{"a slow sidecar delays", always, list{sidecar("i", "x:slow")}, list{c("a", "x:ok")}, s, "Pending i:running a:PodInitializing"},
		{"a sidecar does not keep a task", never, list{sidecar("i", "x:ok")}, list{c("a", "x:ok")}, s, "Succeeded i:running+ a:Completed"},
		{"a crashing sidecar blocks", always, list{sidecar("i", "x:crash")}, list{c("a", "x:ok")}, s / 2, "Pending i:CrashLoopBackOff x1 a:PodInitializing"},
		{"a flaky sidecar breaks later", always, list{sidecar("i", "x:flaky")}, list{c("a", "x:ok")}, 4 * s, "Running i:CrashLoopBackOff x1 a:running+"},
		{"an unready sidecar keeps the pod unready", always, list{sidecar("i", "x:unready")}, list{c("a", "x:ok")}, 60 * s, "Running i:running a:running+"},
	}
	for _, test := range cases {
		t.Run(test.promise, func(t *testing.T) {
			pod := play(t, podOf(test.policy, test.inits, test.mains), test.at)
			if got := summary(pod); got != test.want {
				t.Errorf("after %v:\n got %s\nwant %s", test.at, got, test.want)
			}
		})
	}
}

func TestACrashLeavesItsTrace(t *testing.T) {
	pod := play(t, podOf(always, nil, []corev1.Container{c("app", "x:crash")}), 2*time.Second)
	status := pod.Status.ContainerStatuses[0]
	last := status.LastTerminationState.Terminated
	if last == nil || last.ExitCode != 1 || last.Reason != "Error" || last.FinishedAt.IsZero() {
		t.Errorf("last state: %+v", last)
	}
	if want := "back-off 20s restarting failed container=app pod=p_ns(uid-1)"; status.State.Waiting.Message != want {
		t.Errorf("message %q, want %q", status.State.Waiting.Message, want)
	}
}

func TestImagesAreNamedAsARuntimeNamesThem(t *testing.T) {
	for image, want := range map[string]string{
		"nginx":                        "docker.io/library/nginx:latest",
		"acme/app:1.0":                 "docker.io/acme/app:1.0",
		"localhost/app:1":              "localhost/app:1",
		"localhost:5000/app":           "localhost:5000/app:latest",
		"ghcr.io/a/b:v1@sha256:00ff":   "ghcr.io/a/b@sha256:00ff",
		"registry.test:443/a@sha256:1": "registry.test:443/a@sha256:1",
	} {
		pod := play(t, podOf(always, nil, []corev1.Container{c("a", image)}), 0)
		if got := pod.Status.ContainerStatuses[0].Image; got != want {
			t.Errorf("%s is called %s, want %s", image, got, want)
		}
	}
}

func TestAPullErrorSaysWhatARegistrySays(t *testing.T) {
	for tag, want := range map[string]string{"missing": "docker.io/acme/app:missing: not found", "denied": "403 Forbidden"} {
		pod := play(t, podOf(always, nil, []corev1.Container{c("a", "acme/app:"+tag)}), 5*time.Second)
		waiting := pod.Status.ContainerStatuses[0].State.Waiting
		if !strings.HasPrefix(waiting.Message, `Back-off pulling image "acme/app:`+tag+`": ErrImagePull: `) || !strings.HasSuffix(waiting.Message, want) {
			t.Errorf("%s: %s", tag, waiting.Message)
		}
	}
}

func TestAPodWaitsForItsReadinessGates(t *testing.T) {
	pod := podOf(always, nil, []corev1.Container{c("a", "x:ok")})
	pod.Spec.ReadinessGates = []corev1.PodReadinessGate{{ConditionType: "example.test/gate"}}
	pod = play(t, pod, time.Second)
	if got, want := summary(pod), "Running a:running+"; got != want {
		t.Errorf("closed: got %s, want %s", got, want)
	}
	pod.Status.Conditions = append(pod.Status.Conditions, corev1.PodCondition{Type: "example.test/gate", Status: corev1.ConditionTrue})
	pod = play(t, pod, time.Second)
	if got, want := summary(pod), "Running Ready a:running+"; got != want {
		t.Errorf("open: got %s, want %s", got, want)
	}
}

func TestADeletedPodIsGoneAtOnce(t *testing.T) {
	pod := play(t, podOf(always, nil, []corev1.Container{c("a", "x:crash")}), time.Second)
	now := metav1.Now()
	pod.DeletionTimestamp = &now
	if pod = play(t, pod, 0); pod != nil {
		t.Errorf("still there: %s", summary(pod))
	}
}

// summary is a pod in one line; see TestPodsActOutTheirTags.
func summary(pod *corev1.Pod) string {
	words := []string{string(pod.Status.Phase)}
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodReady && condition.Status == corev1.ConditionTrue {
			words = append(words, "Ready")
		}
	}
	for _, status := range append(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses...) {
		word := status.Name + ":"
		switch state := status.State; {
		case state.Running != nil:
			word += "running"
		case state.Terminated != nil:
			word += state.Terminated.Reason
		case state.Waiting != nil:
			word += state.Waiting.Reason
		}
		if status.Ready {
			word += "+"
		}
		if status.RestartCount > 0 {
			word += fmt.Sprintf(" x%d", status.RestartCount)
		}
		words = append(words, word)
	}
	return strings.Join(words, " ")
}

func mustJSON(t testing.TB, value any) []byte {
	t.Helper()
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return text
}
