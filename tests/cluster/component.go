package main

import (
	"os"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"          // --logging-format=json
	_ "k8s.io/component-base/metrics/prometheus/clientgo" // client metrics, as in the released binaries
	_ "k8s.io/component-base/metrics/prometheus/version"
	kubectl "k8s.io/kubectl/pkg/cmd"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
)

// runComponent turns this process into the component called name and ends it
// with that component's exit code. It returns false when there is no such
// component. The components read os.Args themselves, so it is rewritten to look
// like the component's own command line.
func runComponent(name string) bool {
	var command func() *cobra.Command
	switch name {
	case "etcd":
		// etcd allocates two segments of its log ahead, 64 MB each. In memory,
		// and with several clusters side by side, that is too much for data
		// that rarely comes to 10 MB.
		wal.SegmentSizeBytes = 8 << 20
		os.Args = os.Args[1:]
		etcdmain.Main(os.Args)
		os.Exit(0)
	case "kwok":
		os.Args = os.Args[1:]
		os.Exit(runKwok())
	case "kube-apiserver":
		command = apiserver.NewAPIServerCommand
	case "kube-controller-manager":
		command = controllermanager.NewControllerManagerCommand
	case "kube-scheduler":
		// A closure, since the constructor takes optional plugins.
		command = func() *cobra.Command { return scheduler.NewSchedulerCommand() }
	case "kubectl":
		command = kubectl.NewDefaultKubectlCommand
	default:
		return false
	}
	os.Args = os.Args[1:]
	os.Exit(cli.Run(command()))
	return true
}
