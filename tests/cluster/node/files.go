package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	"windlass.test/cluster/machine"
)

// Files of a real node in the user's directory, besides those of the control
// plane, which package launcher writes and removes.
const (
	logName   = "real.log"   // what keep, init and supervise say
	factsName = "real.json"  // Facts
	lockName  = machine.Mark // held as long as anything is left; holds keep's process id
	podLogs   = "pod-logs"
)

// nodeLogs are the logs of the components that a real node adds.
var nodeLogs = []string{"control-plane", "containerd", "kubelet", "kube-proxy", "contour", "envoy", "prometheus",
	"metrics-server", "kubectl"}

// lock takes the directory for this process. The lock is given up when the
// process has ended, however it ended.
func lock(dir string) (*os.File, error) {
	file, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, fmt.Errorf("a cluster runs in %s already", dir)
	}
	if err := file.Truncate(0); err != nil {
		return nil, err
	}
	_, err = file.WriteString(strconv.Itoa(os.Getpid()))
	return file, err
}

// keeperOf is the process that keeps the cluster of a directory, and whether
// it does so still. While the lock is held the id cannot have become somebody
// else's.
func keeperOf(dir string) (pid int, held bool, err error) {
	file, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, err
	}
	defer file.Close()
	if unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
		return 0, false, nil
	}
	text, err := os.ReadFile(file.Name())
	if err != nil {
		return 0, false, err
	}
	pid, err = strconv.Atoi(strings.TrimSpace(string(text)))
	return pid, true, err
}

// IsReal reports whether a directory holds what a real node wrote.
func IsReal(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, lockName))
	return err == nil
}

// removeFiles deletes what a cluster with a real node wrote.
func removeFiles(dir string) error {
	if !IsReal(dir) {
		return fmt.Errorf("no cluster with a real node in %s", dir)
	}
	names := []string{podLogs, factsName, logName, "kubeconfig", "audit.log", "audit-policy.yaml", "tokens.csv", "stages.yaml",
		"pki", "components", "pids.json", "etcd.log", "kube-apiserver.log", "kube-controller-manager.log", "kube-scheduler.log"}
	for _, name := range nodeLogs {
		names = append(names, name+".log")
	}
	for _, name := range append(names, lockName) {
		if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	_ = os.Remove(dir) // refused when the user keeps something else there, rightly
	return nil
}
