// Command realnode is a cluster with one real node, for tests of what only
// real pods and real traffic can show. "testcluster up --real" calls it; what
// it starts inside of its namespaces is this file again, testcluster for the
// control plane, and programs of the distribution.
package main

import (
	"fmt"
	"os"
	"runtime"

	"windlass.test/cluster/node"
)

const usage = `realnode: a Kubernetes cluster with one real node, Envoy and Prometheus, in namespaces of its own

  realnode up   --dir DIR  start a cluster and leave it running
  realnode down --dir DIR  stop what "up" started and remove what it wrote
  realnode run  --dir DIR  a cluster that lives as long as this process and its standard input
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
	switch name {
	case "up":
		exitWith(node.Up(args))
	case "down":
		exitWith(node.Down(args))
	case "run":
		exitWith(node.Run(args))
	case "keep":
		exitWith(node.Keep(args))
	case "init":
		exitWith(node.Init())
	case "supervise":
		exitWith(node.Supervise(args))
	case "help", "-h", "--help":
		fmt.Print(usage)
	default:
		if !runComponent(name) {
			fmt.Fprintf(os.Stderr, "realnode: no verb or component %q\n\n%s", name, usage)
			os.Exit(2)
		}
	}
}

func exitWith(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "realnode:", err)
		os.Exit(1)
	}
}
