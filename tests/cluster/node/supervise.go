package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// startLimit is the time in which a cluster must be ready. On an idle machine
// it takes some seconds; the rest is for machines busy with a build.
const startLimit = 3 * time.Minute

// Supervise starts the components and tells keep when all are ready. A
// component that ends later does not end the others.
func Supervise(args []string) error {
	report := os.NewFile(3, "report")
	syscall.CloseOnExec(3)
	slot, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	l := layout{Slot: slot}
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	s := &supervisor{layout: l, failed: make(chan error, 16)}
	if err := s.start(ctx); err != nil {
		say(report, outcome{Error: err.Error()})
		return err
	}
	say(report, outcome{Facts: &Facts{
		Address:    l.IP(),
		Gateway:    fmt.Sprintf("http://%s:%d", l.IP(), gatewayPort),
		Prometheus: fmt.Sprintf("http://%s:%d", l.IP(), prometheusPort),
		ParentRef:  map[string]string{"namespace": gatewayNamespace, "name": gatewayName},
		layout:     l,
	}})
	s.stamp("ready")
	select {}
}

type supervisor struct {
	layout layout
	// failed gets the first words of components that ended.
	failed chan error
	// control is the other end of the control plane's standard input.
	control io.Closer
}

// start brings everything up, as much as possible at the same time: what waits
// for the API server, and what does not.
func (s *supervisor) start(ctx context.Context) error {
	s.stamp("start")
	layer, err := newRegistry(program("app"))
	if err != nil {
		return err
	}
	if err := layer.listen(); err != nil {
		return err
	}
	if err := s.writeConfigurations(); err != nil {
		return err
	}
	if err := s.writeBootstrap(ctx); err != nil {
		return err
	}
	if err := s.runControlPlane(); err != nil {
		return err
	}
	if err := s.spawn("containerd", "containerd", "--config", inState("containerd.toml")); err != nil {
		return err
	}
	if err := s.wait(ctx, "the control plane to be ready", controlPlaneReady); err != nil {
		return err
	}
	s.stamp("control plane")
	api, err := newAPI()
	if err != nil {
		return err
	}
	if err := api.listenForTargets(); err != nil {
		return err
	}
	if err := s.wait(ctx, "containerd to listen", listens("unix", socket+"/containerd.sock")); err != nil {
		return err
	}
	if err := s.spawnAll(nodeComponents(s.layout)); err != nil {
		return err
	}
	if err := s.kubectl(ctx, "apply", "--server-side", "-f", program("crds")); err != nil {
		return err
	}
	// Contour looks for its resources once, and ends where there are none.
	if err := s.wait(ctx, "the Gateway API to be served", api.definitionsServed); err != nil {
		return err
	}
	// The API server looks at once at what is registered, and again only after
	// 5 s where nobody answers.
	if err := s.wait(ctx, "metrics-server to listen", listens("tcp", fmt.Sprintf("%s:%d", s.layout.IP(), metricsPort))); err != nil {
		return err
	}
	if err := s.kubectl(ctx, "apply", "--server-side", "-f", inState("gateway.yaml"), "-f", inState("metrics.yaml")); err != nil {
		return err
	}
	s.stamp("resources")
	if err := s.spawnAll(gatewayComponents()); err != nil {
		return err
	}
	for _, step := range []struct {
		what string
		ask  func(context.Context) error
	}{
		{"the node to be ready", api.nodeReady},
		{"Contour to take the Gateway", api.gatewayAccepted},
		{"Envoy to be configured", answers(fmt.Sprintf("http://127.0.0.1:%d/ready", envoyStatsPort))},
		{"the metrics of pods to be served", api.metricsServed},
		{"Prometheus to be ready", answers(fmt.Sprintf("http://%s:%d/-/ready", s.layout.IP(), prometheusPort))},
	} {
		if err := s.wait(ctx, step.what, step.ask); err != nil {
			return err
		}
		s.stamp(step.what)
	}
	return nil
}

// runControlPlane starts the same program that tests without a node use. It
// says so on its standard output when it is ready.
func (s *supervisor) runControlPlane() error {
	l := s.layout
	command, err := s.command("control-plane", controlPlane(), "run", "--dir", clusterDir, "--nodes", "0",
		"--address", l.IP(), "--service-range", l.services().String(),
		"--apiserver-arg=--advertise-address="+l.IP(),
		// So that pods reach the API server at its Service.
		"--apiserver-arg=--endpoint-reconciler-type=lease",
		"--apiserver-arg=--allow-privileged=true",
		"--apiserver-arg=--kubelet-preferred-address-types=InternalIP",
		// Aggregated APIs are asked at their endpoints: before kube-proxy is there.
		"--apiserver-arg=--enable-aggregator-routing=true",
		// An autoscaler acts as soon as the load of a pod is known, and soon after
		// it is gone.
		"--controller-manager-arg=--horizontal-pod-autoscaler-sync-period=2s",
		"--controller-manager-arg=--horizontal-pod-autoscaler-initial-readiness-delay=1s",
		"--controller-manager-arg=--horizontal-pod-autoscaler-cpu-initialization-period=1s",
		"--controller-manager-arg=--horizontal-pod-autoscaler-downscale-stabilization=10s")
	if err != nil {
		return err
	}
	if s.control, err = command.StdinPipe(); err != nil {
		return err
	}
	return s.begin("control-plane", command)
}

// controlPlaneReady looks for the line that the control plane prints.
func controlPlaneReady(context.Context) error {
	text, err := os.ReadFile(inCluster("control-plane.log"))
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "ready ") {
			return nil
		}
	}
	return errors.New("it does not say so")
}

// spawn starts a component with its output going to NAME.log in the user's
// directory.
func (s *supervisor) spawn(name, path string, args ...string) error {
	command, err := s.command(name, path, args...)
	if err != nil {
		return err
	}
	return s.begin(name, command)
}

func (s *supervisor) spawnAll(components []component) error {
	for _, c := range components {
		if err := s.spawn(c.name, c.program, c.args...); err != nil {
			return err
		}
	}
	return nil
}

func (s *supervisor) command(name, path string, args ...string) (*exec.Cmd, error) {
	log, err := os.Create(inCluster(name + ".log"))
	if err != nil {
		return nil, err
	}
	command := exec.Command(path, args...)
	command.Dir = stateDir
	command.Stdout, command.Stderr = log, log
	return command, nil
}

func (s *supervisor) begin(name string, command *exec.Cmd) error {
	if err := command.Start(); err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		err := command.Wait()
		text, _ := os.ReadFile(inCluster(name + ".log"))
		said := fmt.Errorf("%s has ended (%v); the end of its log:\n%s", name, err, tail(string(text), 15))
		fmt.Fprintln(os.Stderr, said)
		select {
		case s.failed <- said:
		default:
		}
	}()
	return nil
}

// kubectl runs a command as an administrator.
func (s *supervisor) kubectl(ctx context.Context, args ...string) error {
	args = append([]string{"kubectl", "--kubeconfig", inCluster("kubeconfig"), "--cache-dir", inState("kubectl")}, args...)
	command := exec.CommandContext(ctx, controlPlane(), args...)
	out, err := command.CombinedOutput()
	_ = os.WriteFile(inCluster("kubectl.log"), out, 0o600)
	if err != nil {
		return fmt.Errorf("kubectl: %w:\n%s", err, tail(string(out), 15))
	}
	return nil
}

// wait asks until the answer is good. It gives up at once when a component has
// ended.
func (s *supervisor) wait(ctx context.Context, what string, ask func(context.Context) error) error {
	for {
		attempt, done := context.WithTimeout(ctx, 5*time.Second)
		err := ask(attempt)
		done()
		if err == nil {
			return nil
		}
		select {
		case <-time.After(30 * time.Millisecond):
		case failed := <-s.failed:
			return fmt.Errorf("waiting for %s: %w", what, failed)
		case <-ctx.Done():
			return fmt.Errorf("waited %v for %s: %w", startLimit, what, err)
		}
	}
}

// stamp notes a step of the start in the log, for whoever wants it faster.
func (s *supervisor) stamp(step string) {
	fmt.Fprintf(os.Stderr, "%s %s\n", time.Now().UTC().Format("15:04:05.000"), step)
}

// tail returns the last lines of a text.
func tail(text string, lines int) string {
	all := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
