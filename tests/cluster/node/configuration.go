package node

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"windlass.test/cluster/machine"
)

// The Gateway that routes name as their parent.
const (
	gatewayNamespace = "projectcontour"
	gatewayName      = "contour"
)

//go:embed configuration/containerd.toml
var containerdText string

//go:embed configuration/hosts.toml
var hostsText string

//go:embed configuration/pods.conflist
var podsText string

//go:embed configuration/kubelet.yaml
var kubeletText string

//go:embed configuration/kube-proxy.yaml
var kubeProxyText string

//go:embed configuration/contour.yaml
var contourText string

//go:embed configuration/gateway.yaml
var gatewayText string

//go:embed configuration/metrics.yaml
var metricsText string

//go:embed configuration/prometheus.yaml
var prometheusText string

// writeConfigurations writes what the components read, with the addresses of
// this cluster filled in.
func (s *supervisor) writeConfigurations() error {
	fill := strings.NewReplacer(
		"@IP@", s.layout.IP(),
		"@PODS@", s.layout.pods().String(),
		"@GROUP@", "/"+s.layout.name(),
		"@DNS@", s.layout.dns(),
		"@NODE@", nodeName,
		"@STATE@", stateDir,
		"@KUBECONFIG@", inCluster("kubeconfig"),
		"@SOCKET@", socket+"/containerd.sock",
		"@PLUGINS@", machine.PluginDir,
		"@REGISTRY@", fmt.Sprintf("http://127.0.0.1:%d", registryPort),
		"@TARGETS@", fmt.Sprintf("http://127.0.0.1:%d/", targetsPort),
		"@METRICS@", fmt.Sprint(metricsPort),
		"@STATS@", fmt.Sprintf("127.0.0.1:%d", envoyStatsPort),
	)
	for path, text := range map[string]string{
		"containerd.toml":             containerdText,
		"certs.d/_default/hosts.toml": hostsText,
		"cni/10-pods.conflist":        podsText,
		"kubelet.yaml":                kubeletText,
		"kube-proxy.yaml":             kubeProxyText,
		"contour.yaml":                contourText,
		"gateway.yaml":                gatewayText,
		"metrics.yaml":                metricsText,
		"prometheus.yaml":             prometheusText,
	} {
		path = inState(path)
		if err := os.MkdirAll(path[:strings.LastIndexByte(path, '/')], 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(fill.Replace(text)), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// writeBootstrap has Contour write what Envoy needs to find it.
func (s *supervisor) writeBootstrap(ctx context.Context) error {
	out, err := exec.CommandContext(ctx, program("contour"), "bootstrap", inState("envoy.json"),
		"--xds-address=127.0.0.1", fmt.Sprintf("--xds-port=%d", xdsPort),
		"--admin-address="+inState("envoy-admin.sock"), "--resources-dir=").CombinedOutput()
	if err != nil {
		return fmt.Errorf("contour bootstrap: %w: %s", err, out)
	}
	return nil
}

// component is a program with its arguments.
type component struct {
	name, program string
	args          []string
}

// nodeComponents are the node itself, and what measures it: Prometheus, and
// metrics-server, whose figures autoscalers go by.
func nodeComponents(l layout) []component {
	own := program("realnode")
	return []component{
		{"kubelet", own, []string{"kubelet", "--config=" + inState("kubelet.yaml"), "--kubeconfig=" + inCluster("kubeconfig"),
			"--root-dir=" + inState("kubelet"), "--hostname-override=" + nodeName, "--node-ip=" + l.IP()}},
		{"kube-proxy", own, []string{"kube-proxy", "--config=" + inState("kube-proxy.yaml")}},
		{"prometheus", "prometheus", []string{"--config.file=" + inState("prometheus.yaml"),
			"--storage.tsdb.path=" + inState("prometheus"), fmt.Sprintf("--web.listen-address=%s:%d", l.IP(), prometheusPort)}},
		{"metrics-server", own, []string{"metrics-server", "--kubeconfig=" + inCluster("kubeconfig"),
			"--authentication-kubeconfig=" + inCluster("kubeconfig"), "--authorization-kubeconfig=" + inCluster("kubeconfig"),
			"--bind-address=" + l.IP(), fmt.Sprintf("--secure-port=%d", metricsPort), "--cert-dir=" + inState("metrics-server"),
			// Nobody has a certificate of it here. Not told, it looks for one in vain, and says so for ever.
			"--client-ca-file=" + inCluster("pki/ca.crt"),
			"--kubelet-insecure-tls", "--kubelet-preferred-address-types=InternalIP",
			// As often as it can; a request must be over before the next.
			"--metric-resolution=10s", "--kubelet-request-timeout=5s"}},
	}
}

// gatewayComponents route requests. They are processes of the node and no
// pods, for there is no image of either.
func gatewayComponents() []component {
	return []component{
		{"contour", program("contour"), []string{"serve", "--kubeconfig=" + inCluster("kubeconfig"),
			"--config-path=" + inState("contour.yaml"), "--insecure", "--disable-leader-election",
			"--xds-address=127.0.0.1", fmt.Sprintf("--xds-port=%d", xdsPort),
			"--stats-address=0.0.0.0", fmt.Sprintf("--stats-port=%d", envoyStatsPort),
			"--envoy-service-http-address=0.0.0.0"}},
		{"envoy", program("envoy"), []string{"-c", inState("envoy.json"), "--service-cluster", "projectcontour",
			"--service-node", "envoy", "--log-level", "info", "--concurrency", "1", "--disable-hot-restart"}},
	}
}
