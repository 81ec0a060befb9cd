package node

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// tools are programs of the distribution, with the Debian package of each.
var tools = []struct{ program, pkg string }{
	{"containerd", "containerd"},
	{"runc", "runc"},
	{"nft", "nftables"},
	{"prometheus", "prometheus"},
}

// plugins are programs that containerd runs to connect pods.
var plugins = []string{"ptp", "host-local", "loopback"}

const pluginDir = "/usr/lib/cni"

// controllers are the hierarchies of control groups in which a node has its
// own group. They are those of version 1, with which this was built and tried.
var controllers = []string{"cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "systemd"}

const controlGroups = "/sys/fs/cgroup"

// search is where programs are looked for: an administrator's path, which a
// user's environment may lack.
const search = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Missing says what this machine lacks for a real node; nothing when it can.
func Missing() []string {
	var missing []string
	if os.Geteuid() != 0 {
		missing = append(missing, "it needs root, for namespaces, mounts and control groups")
	}
	_ = os.Setenv("PATH", search)
	var packages []string
	for _, t := range tools {
		if _, err := exec.LookPath(t.program); err != nil {
			packages = append(packages, t.pkg)
		}
	}
	for _, name := range plugins {
		if _, err := os.Stat(filepath.Join(pluginDir, name)); err != nil {
			packages = append(packages, "containernetworking-plugins")
			break
		}
	}
	if len(packages) > 0 {
		missing = append(missing, "Debian packages are not installed: "+strings.Join(packages, " "))
	}
	for _, controller := range controllers {
		if _, err := os.Stat(filepath.Join(controlGroups, controller)); err != nil {
			missing = append(missing, fmt.Sprintf("no control groups of version 1 (%s/%s)", controlGroups, controller))
			break
		}
	}
	return missing
}
