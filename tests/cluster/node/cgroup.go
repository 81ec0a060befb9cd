package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"windlass.test/cluster/machine"
)

// makeControlGroups gives the node groups of its own, below which the kubelet
// makes those of the pods.
func makeControlGroups(l layout) error {
	for _, controller := range machine.Controllers {
		if err := os.MkdirAll(filepath.Join(machine.ControlGroups, controller, l.name()), 0o755); err != nil {
			return fmt.Errorf("make a control group: %w", err)
		}
	}
	// A new group of cpuset is empty, and nothing can run in it.
	for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
		parent := filepath.Join(machine.ControlGroups, "cpuset")
		all, err := os.ReadFile(filepath.Join(parent, name))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(parent, l.name(), name), all, 0o644); err != nil {
			return err
		}
	}
	// Refused where it is on already.
	_ = os.WriteFile(filepath.Join(machine.ControlGroups, "memory", l.name(), "memory.use_hierarchy"), []byte("1"), 0o644)
	return nil
}

// removeControlGroups removes the node's groups, for which their processes
// must have ended.
func removeControlGroups(name string) error {
	var err error
	// A group whose last process has just ended is busy for a moment.
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		err = nil
		// In all hierarchies: the container runtime uses some that nobody asked
		// it to.
		found, _ := filepath.Glob(filepath.Join(machine.ControlGroups, "*", name))
		for _, path := range found {
			err = errors.Join(err, removeGroup(path))
		}
		if err == nil {
			return nil
		}
	}
	return err
}

// removeGroup removes a group with those below it, the lowest first.
func removeGroup(path string) error {
	entries, err := os.ReadDir(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, entry := range entries {
		if entry.IsDir() {
			err = errors.Join(err, removeGroup(filepath.Join(path, entry.Name())))
		}
	}
	if gone := os.Remove(path); gone != nil && !errors.Is(gone, fs.ErrNotExist) {
		return gone
	}
	return err
}

// sweepControlGroups removes the groups of clusters whose keeper was killed.
// Such a cluster has no network link any more, and a link is made before the
// groups are.
func sweepControlGroups() {
	found, _ := filepath.Glob(filepath.Join(machine.ControlGroups, "*", "windlass*"))
	for _, path := range found {
		name := filepath.Base(path)
		if _, err := strconv.Atoi(strings.TrimPrefix(name, "windlass")); err != nil {
			continue
		}
		if _, err := netlink.LinkByName(name); errors.As(err, &netlink.LinkNotFoundError{}) {
			_ = removeControlGroups(name)
		}
	}
}
