package launcher

import (
	"fmt"
	"net"
	"slices"
	"strings"
)

const (
	podRange = "10.250.0.0/16"
	nodeIP   = "192.0.2.2"
)

// componentLogs are the names of the log files (without .log), which are those
// of the components.
var componentLogs = []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok", "audit"}

// isOwnLog reports whether a file name is one that a cluster writes; the audit
// log's rotated files carry a time between "audit-" and ".log".
func isOwnLog(name string) bool {
	stem := strings.TrimSuffix(name, ".log")
	for _, own := range componentLogs {
		if stem == own {
			return true
		}
	}
	return strings.HasPrefix(stem, "audit-20")
}

// apiServiceIP is the first address of the range, which the Service
// default/kubernetes takes.
func apiServiceIP(o options) net.IP {
	ip := slices.Clone(o.serviceRange.IP)
	ip[len(ip)-1]++
	return ip
}

// etcdArgs: sockets instead of ports, since a path in a directory of one's own
// cannot be taken by anybody else. What is advertised must look like host:port,
// where such a socket is a file of that name in etcd's working directory, the
// scratch directory; a single member never connects to either.
func etcdArgs(s scratch) []string {
	const peer, client = "unix://peer:0", "unix://client:0"
	return []string{
		"etcd",
		"--data-dir=" + s.dir + "/data",
		"--listen-client-urls=" + etcdSocket(s),
		"--advertise-client-urls=" + client,
		"--listen-peer-urls=" + peer,
		"--initial-advertise-peer-urls=" + peer,
		"--initial-cluster=default=" + peer,
		"--unsafe-no-fsync",
		"--log-level=warn",
	}
}

func etcdSocket(s scratch) string { return "unix://" + s.dir + "/etcd.sock" }

func apiserverArgs(f files, s scratch, port int, o options) []string {
	args := []string{
		"kube-apiserver",
		"--etcd-servers=" + etcdSocket(s),
		"--bind-address=" + o.address.String(),
		fmt.Sprintf("--secure-port=%d", port),
		"--permit-port-sharing",
		// Must not be loopback; nothing is ever sent there.
		"--advertise-address=192.0.2.1",
		"--endpoint-reconciler-type=none",
		"--tls-cert-file=" + f.servingCert,
		"--tls-private-key-file=" + f.servingKey,
		"--service-cluster-ip-range=" + o.serviceRange.String(),
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=" + f.accountKey,
		"--service-account-signing-key-file=" + f.accountKey,
		"--token-auth-file=" + f.tokens,
		// How an aggregated API's server learns who asks: it trusts the headers
		// that come with this certificate.
		"--requestheader-client-ca-file=" + f.proxyCACert,
		"--requestheader-allowed-names=" + frontProxy,
		"--requestheader-username-headers=X-Remote-User",
		"--requestheader-group-headers=X-Remote-Group",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--proxy-client-cert-file=" + f.proxyCert,
		"--proxy-client-key-file=" + f.proxyKey,
		"--authorization-mode=Node,RBAC",
		"--audit-policy-file=" + f.auditPolicy,
		"--audit-log-path=" + f.auditLog,
		"--audit-log-maxsize=4000", // in MB: a rotation in the middle of a test would hide requests from it
		"--max-requests-inflight=4000",
		"--max-mutating-requests-inflight=2000",
	}
	return append(withGates(args, o), o.apiserverArgs...)
}

func controllerManagerArgs(f files, port int, o options) []string {
	args := []string{
		"kube-controller-manager",
		"--kubeconfig=" + f.componentKubeconfig("controller-manager"),
		"--bind-address=127.0.0.1",
		fmt.Sprintf("--secure-port=%d", port),
		"--permit-port-sharing",
		"--cert-dir=" + f.pki + "/controller-manager",
		"--leader-elect=false",
		"--service-account-private-key-file=" + f.accountKey,
		"--root-ca-file=" + f.caCert,
		"--cluster-signing-cert-file=" + f.caCert,
		"--cluster-signing-key-file=" + f.caKey,
		"--use-service-account-credentials=false",
		"--kube-api-qps=2000",
		"--kube-api-burst=4000",
		// What needs a cloud or gives out node networks.
		"--controllers=*,-nodeipam,-service-lb-controller,-node-route-controller,-cloud-node-lifecycle-controller",
	}
	return append(withGates(args, o), o.controllerManagerArgs...)
}

func schedulerArgs(f files, port int, o options) []string {
	return withGates([]string{
		"kube-scheduler",
		"--kubeconfig=" + f.componentKubeconfig("scheduler"),
		"--bind-address=127.0.0.1",
		fmt.Sprintf("--secure-port=%d", port),
		"--permit-port-sharing",
		"--cert-dir=" + f.pki + "/scheduler",
		"--leader-elect=false",
		"--kube-api-qps=2000",
		"--kube-api-burst=4000",
	}, o)
}

func kwokArgs(f files) []string {
	return []string{
		"kwok",
		"--kubeconfig=" + f.componentKubeconfig("kwok"),
		"--config=" + f.stages,
		"--manage-nodes-with-label-selector=" + nodeLabel + "=" + nodeLabelValue,
		"--node-lease-duration-seconds=40",
		"--node-ip=" + nodeIP,
		"--cidr=" + podRange,
	}
}

func withGates(args []string, o options) []string {
	if o.featureGates != "" {
		args = append(args, "--feature-gates="+o.featureGates)
	}
	return args
}
