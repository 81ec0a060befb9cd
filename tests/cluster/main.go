// Command testcluster is a whole Kubernetes control plane in one binary, for
// tests that need the real API server's answers.
//
// The binary plays two roles. Called with a verb (up, down, run) it starts or
// stops a cluster; called with a component's name (etcd, kube-apiserver, ...)
// it is that component. A cluster is thus nothing but this file started
// several times, and its version is the one that go.mod pins.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"

	"windlass.test/cluster/launcher"
	"windlass.test/cluster/machine"
)

const usage = `testcluster: a real Kubernetes control plane with simulated nodes, on loopback

  testcluster up   --dir DIR [--nodes N] [--feature-gates A=true,...]
                   [--apiserver-arg=--x=y ...] [--controller-manager-arg=--x=y ...]
                   start a cluster and leave it running
  testcluster down --dir DIR
                   stop what "up" started and remove what it wrote
  testcluster run  --dir DIR [same options as up]
                   a cluster that lives as long as this process and its standard input
  testcluster up|down|run --real --dir DIR
                   the same with one real node, Envoy and Prometheus instead of simulated nodes; as root on Linux
  testcluster check --real
                   say what this machine lacks for a real node; fails when it lacks anything
  testcluster kubectl ...
                   kubectl of the same version
`

// init pins the main goroutine to the process's first thread. The kernel sends
// a child's parent-death signal when the *thread* that started it ends, and
// only the first thread is sure to live as long as the process.
func init() {
	runtime.LockOSThread()
}

func main() {
	if len(os.Args) < 2 {
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	name, args := os.Args[1], os.Args[2:]
	if name == "check" && slices.Contains(args, "--real") {
		exitWith(machine.Check())
		return
	}
	if real := slices.Index(args, "--real"); real >= 0 && slices.Contains([]string{"up", "down", "run"}, name) {
		exitWith(withRealNode(name, slices.Delete(args, real, real+1)))
	}
	switch name {
	case "up":
		exitWith(launcher.Up(args))
	case "down":
		exitWith(launcher.Down(args))
	case "run":
		exitWith(launcher.Run(args))
	case "help", "-h", "--help":
		fmt.Print(usage)
	default:
		if !runComponent(name) {
			fmt.Fprintf(os.Stderr, "testcluster: no verb or component %q\n\n%s", name, usage)
			os.Exit(2)
		}
	}
}

// withRealNode turns this process into the program that adds a real node. It
// is one of its own, so that nobody builds a kubelet who needs none.
func withRealNode(verb string, args []string) error {
	own, err := os.Executable()
	if err != nil {
		return err
	}
	path := filepath.Join(filepath.Dir(own), "real", "realnode")
	err = syscall.Exec(path, append([]string{path, verb}, args...), os.Environ())
	return fmt.Errorf("%s: %w (tests/cluster/build.sh DIR real builds it)", path, err)
}

func exitWith(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "testcluster:", err)
		os.Exit(1)
	}
}
