package node

import (
	"fmt"
	"net"
	"path/filepath"
)

// slots is how many of these clusters fit on a machine.
const slots = 64

// layout is where a cluster has its place: the number of the slot decides on
// every name and address that others on the machine could have as well.
type layout struct {
	Slot int `json:"slot"`
	// Link is the kernel's number of the network link, which tells it from a
	// later one of the same name.
	Link int `json:"link"`
}

// name is that of the network link on the host and of the control groups.
func (l layout) name() string { return fmt.Sprintf("windlass%d", l.Slot) }

// hostIP and IP are the two ends of the link between host and cluster. At IP
// the API server, Envoy, Prometheus and metrics-server listen.
func (l layout) hostIP() string { return fmt.Sprintf("10.201.%d.1", l.Slot) }
func (l layout) IP() string     { return fmt.Sprintf("10.201.%d.2", l.Slot) }

func (l layout) pods() *net.IPNet     { return slash24(10, 244, l.Slot) }
func (l layout) services() *net.IPNet { return slash24(10, 96, l.Slot) }
func (l layout) link() *net.IPNet     { return slash24(10, 201, l.Slot) }

// dns is where pods would ask for names.
func (l layout) dns() string { return fmt.Sprintf("10.96.%d.10", l.Slot) }

func slash24(a, b, slot int) *net.IPNet {
	return &net.IPNet{IP: net.IPv4(byte(a), byte(b), byte(slot), 0).To4(), Mask: net.CIDRMask(24, 32)}
}

// nodeName is the same in every cluster: nothing but its own API server knows it.
const nodeName = "node"

const (
	gatewayPort    = 8080 // what Contour makes of a Gateway's port 80
	prometheusPort = 9090
	metricsPort    = 4443 // metrics-server's
	envoyStatsPort = 8002
	xdsPort        = 8001
	registryPort   = 5000
	targetsPort    = 5001
)

// Paths inside of the namespaces.
const (
	runDir      = "/run"            // a file system in memory, as are /var/lib and /dev/shm
	clusterDir  = "/run/cluster"    // the directory that the user named
	programsDir = "/run/programs"   // the directory of testcluster
	stateDir    = "/run/state"      // what the components read and write
	socket      = "/run/containerd" // containerd's socket and its state
)

// Programs beside this one.
func program(name string) string { return filepath.Join(programsDir, "real", name) }

func controlPlane() string { return filepath.Join(programsDir, "testcluster") }

func inState(name string) string { return filepath.Join(stateDir, name) }

func inCluster(name string) string { return filepath.Join(clusterDir, name) }

// Facts are what a client of the cluster must know; they stand in real.json.
type Facts struct {
	// Kubeconfig is the file with an administrator's rights.
	Kubeconfig string `json:"kubeconfig"`
	// Address is where the node answers the host.
	Address string `json:"address"`
	// Gateway is the URL of Envoy, which tells hosts apart by the Host header.
	Gateway string `json:"gateway"`
	// Prometheus is its URL.
	Prometheus string `json:"prometheus"`
	// ParentRef is what a route names as its parent.
	ParentRef map[string]string `json:"parentRef"`
	// The number that names and addresses derive from, and that of the link.
	layout
	// Init is the process on the host that ends everything with itself; its
	// /proc/PID/ns/net is the cluster's network.
	Init int `json:"init"`
}
