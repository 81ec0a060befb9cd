package main

import (
	"context"
	"os"

	"github.com/spf13/cobra"
	apiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	kubeproxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
	metricsserver "sigs.k8s.io/metrics-server/cmd/metrics-server/app"
)

// runComponent turns this process into the component called name and ends it
// with that component's exit code. It returns false when there is no such
// component.
func runComponent(name string) bool {
	var command *cobra.Command
	switch name {
	case "kubelet":
		command = kubelet.NewKubeletCommand(context.Background())
	case "kube-proxy":
		command = kubeproxy.NewProxyCommand()
	case "metrics-server":
		command = metricsserver.NewMetricsServerCommand(apiserver.SetupSignalHandler())
	default:
		return false
	}
	os.Args = os.Args[1:]
	os.Exit(cli.Run(command))
	return true
}
