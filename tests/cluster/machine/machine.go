// Package machine says what a machine must have for a real node. It is apart
// from package node so that testcluster can answer without having a node in it.
package machine

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Mark is a file in the directory of every cluster with a real node.
const Mark = "real.lock"

// tools are programs of the distribution, with the Debian package of each.
var tools = []struct{ program, pkg string }{
	{"containerd", "containerd"},
	{"runc", "runc"},
	{"nft", "nftables"},
	{"prometheus", "prometheus"},
}

// plugins are programs that containerd runs to connect pods.
var plugins = []string{"ptp", "host-local", "loopback"}

// PluginDir is where Debian puts them.
const PluginDir = "/usr/lib/cni"

// Controllers are the hierarchies of control groups in which a node has its
// own group. They are those of version 1, with which this was built and tried.
var Controllers = []string{"cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "systemd"}

// ControlGroups is where they are mounted.
const ControlGroups = "/sys/fs/cgroup"

// Search is where programs are looked for: an administrator's path, which a
// user's environment may lack.
const Search = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Check fails when this machine cannot have a real node, and says all that it
// lacks.
func Check() error {
	var missing []string
	if os.Geteuid() != 0 {
		missing = append(missing, "it needs root, for namespaces, mounts and control groups")
	}
	_ = os.Setenv("PATH", Search)
	var packages []string
	for _, t := range tools {
		if _, err := exec.LookPath(t.program); err != nil {
			packages = append(packages, t.pkg)
		}
	}
	for _, name := range plugins {
		if _, err := os.Stat(filepath.Join(PluginDir, name)); err != nil {
			packages = append(packages, "containernetworking-plugins")
			break
		}
	}
	if len(packages) > 0 {
		missing = append(missing, "Debian packages are not installed: "+strings.Join(packages, " "))
	}
	for _, controller := range Controllers {
		if _, err := os.Stat(filepath.Join(ControlGroups, controller)); err != nil {
			missing = append(missing, fmt.Sprintf("no control groups of version 1 (%s/%s)", ControlGroups, controller))
			break
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("this machine cannot have a real node: %s", strings.Join(missing, "; "))
	}
	return nil
}
