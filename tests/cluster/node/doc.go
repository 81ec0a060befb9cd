// Package node starts and stops a cluster with one real node: a kubelet with
// containerd and runc, kube-proxy, Envoy steered by Contour, and Prometheus,
// beside the control plane that package launcher starts. All of it lives in
// network, mount, process and host name namespaces of its own.
//
// Four processes stand above the components, each started from the same file:
//
//	run, up     what a test or a person starts; it only waits and prints
//	keep        makes the namespaces and, whatever ends them, cleans up after
//	init        the first process inside: it mounts and collects the dead
//	supervise   starts the components and waits until all are ready
//
// The kernel ends everything inside with init. keep ends it when run has gone,
// and the kernel does when keep has gone.
package node
