package stages

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"sigs.k8s.io/kwok/pkg/apis/internalversion"
	kwokconfig "sigs.k8s.io/kwok/pkg/config"
	"sigs.k8s.io/kwok/pkg/utils/gotpl"
	"sigs.k8s.io/kwok/pkg/utils/lifecycle"
)

// podStages are the stages as kwok itself reads them from its file.
var podStages = sync.OnceValues(func() (lifecycle.Lifecycle, error) {
	dir, err := os.MkdirTemp("", "stages")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	text, err := Config()
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "stages.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return nil, err
	}
	objects, err := kwokconfig.Load(context.Background(), path)
	if err != nil {
		return nil, err
	}
	var ofPods []*internalversion.Stage
	for _, s := range kwokconfig.FilterWithType[*internalversion.Stage](objects) {
		if s.Spec.ResourceRef.Kind == "Pod" {
			ofPods = append(ofPods, s)
		}
	}
	return lifecycle.NewLifecycle(ofPods)
})

// play plays stages on a pod, with kwok's own engine but without waiting, as
// long as they fall within the given time. It returns nil when the pod was
// deleted. That two stages match at once fails the test.
func play(t testing.TB, pod *corev1.Pod, until time.Duration) *corev1.Pod {
	t.Helper()
	stages, err := podStages()
	if err != nil {
		t.Fatal(err)
	}
	renderer := gotpl.NewRenderer(gotpl.FuncMap{
		"NodeIPsWith": func(string) []string { return []string{"192.0.2.2"} },
		"PodIPsWith":  func(string, bool, string, string, string) []string { return []string{"10.250.0.1"} },
	})
	for elapsed := time.Duration(0); ; {
		event := &lifecycle.Event{Labels: pod.Labels, Annotations: pod.Annotations, Data: pod}
		matches, err := stages.ListAllPossible(t.Context(), event)
		if err != nil {
			t.Fatal(err)
		}
		if len(matches) == 0 {
			return pod
		}
		if len(matches) > 1 {
			t.Fatalf("%s and %s match at once: %s", matches[0].Name(), matches[1].Name(), summary(pod))
		}
		delay, _, err := matches[0].Delay(t.Context(), event, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		elapsed += delay
		if elapsed > until {
			return pod
		}
		age(pod, delay)
		var deleted bool
		_, err = matches[0].DoSteps(0, nil, pod, renderer,
			func(*internalversion.StageEvent) error { return nil },
			func() error { deleted = true; return nil },
			func(patch *lifecycle.Patch) error {
				patched, err := strategicpatch.StrategicMergePatch(mustJSON(t, pod), patch.Data, corev1.Pod{})
				if err != nil {
					return err
				}
				pod = &corev1.Pod{}
				return json.Unmarshal(patched, pod)
			},
			nil)
		if err != nil {
			t.Fatalf("%s: %v", matches[0].Name(), err)
		}
		if deleted {
			return nil
		}
	}
}

// age makes running containers older by a delay that the test does not wait for.
func age(pod *corev1.Pod, by time.Duration) {
	for _, statuses := range [][]corev1.ContainerStatus{pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses} {
		for i := range statuses {
			if running := statuses[i].State.Running; running != nil {
				running.StartedAt = metav1.NewTime(running.StartedAt.Add(-by))
			}
		}
	}
}

// What kwok does at every change of every pod, for the commonest pod there is.
func BenchmarkNoStageForAReadyPod(b *testing.B) {
	pod := play(b, podOf(always, nil, []corev1.Container{c("a", "x:ok")}), 0)
	stages, err := podStages()
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		event := &lifecycle.Event{Data: pod}
		if matches, err := stages.ListAllPossible(b.Context(), event); err != nil || len(matches) > 0 {
			b.Fatal(matches, err)
		}
	}
}
