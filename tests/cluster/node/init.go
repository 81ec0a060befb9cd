package node

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
	"windlass.test/cluster/machine"
)

// Init is the first process of the namespaces. It prepares what the components
// find in the file system and in the network, starts supervise, and collects
// the dead that have lost their parents. It ends with supervise, and everything
// ends with it.
func Init() error {
	report := os.NewFile(3, "report")
	var o order
	if err := json.NewDecoder(os.Stdin).Decode(&o); err != nil {
		return fmt.Errorf("no orders from keep: %w", err)
	}
	fail := func(err error) error {
		say(report, outcome{Error: err.Error()})
		return err
	}
	if err := syscall.Sethostname([]byte(nodeName)); err != nil {
		return fail(err)
	}
	if err := mountAll(o); err != nil {
		return fail(err)
	}
	if err := arrange(o.Layout); err != nil {
		return fail(err)
	}
	supervisor := exec.Command(program("realnode"), "supervise", fmt.Sprint(o.Layout.Slot))
	supervisor.Stdout, supervisor.Stderr = os.Stdout, os.Stderr
	supervisor.ExtraFiles = []*os.File{report}
	supervisor.Dir = stateDir
	supervisor.Env = []string{"PATH=" + machine.Search, "HOME=" + stateDir, "TMPDIR=" + inState("tmp")}
	if err := supervisor.Start(); err != nil {
		return fail(err)
	}
	report.Close()
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		if pid == supervisor.Process.Pid {
			return fmt.Errorf("supervise has ended (%d)", status.ExitStatus())
		}
	}
}

// masked are settings of the whole machine that the kubelet would change. It
// leaves alone what has the right value already, and so it is shown files that
// have it; the machine's own values never change.
var masked = map[string]string{
	"vm/overcommit_memory":     "1",
	"vm/panic_on_oom":          "0",
	"kernel/panic":             "10",
	"kernel/panic_on_oops":     "1",
	"kernel/keys/root_maxkeys": "1000000",
	// 25 bytes for each key.
	"kernel/keys/root_maxbytes": "25000000",
}

// mountAll makes the file systems of the cluster. Nothing in them is ever seen
// from outside, and they are gone with the last process inside; only what lies
// in clusterDir stays.
func mountAll(o order) error {
	// Received from the host, never sent to it; and inside, shared with what the
	// kubelet mounts for containers.
	if err := mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return err
	}
	if err := mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return err
	}
	if err := mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return err
	}
	// Opened first, since they may lie below what is covered now.
	var opened [2]*os.File
	for i, path := range []string{o.Dir, o.Programs} {
		file, err := os.OpenFile(path, unix.O_PATH|unix.O_DIRECTORY, 0)
		if err != nil {
			return err
		}
		defer file.Close()
		opened[i] = file
	}
	for _, path := range []string{runDir, "/var/lib", "/var/log", "/dev/shm"} {
		if err := mount("tmpfs", path, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755,size=4g"); err != nil {
			return err
		}
		if err := mount("", path, "", unix.MS_SHARED, ""); err != nil {
			return err
		}
	}
	for _, path := range []string{clusterDir, programsDir, stateDir, socket, inState("tmp"), inState("sys"), "/run/lock"} {
		if err := os.MkdirAll(path, 0o755); err != nil {
			return err
		}
	}
	for i, path := range []string{clusterDir, programsDir} {
		if err := mount(fmt.Sprintf("/proc/self/fd/%d", opened[i].Fd()), path, "", unix.MS_BIND, ""); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(inCluster(podLogs), 0o755); err != nil {
		return err
	}
	if err := os.MkdirAll("/var/log/pods", 0o755); err != nil {
		return err
	}
	if err := mount(inCluster(podLogs), "/var/log/pods", "", unix.MS_BIND, ""); err != nil {
		return err
	}
	for name, value := range masked {
		if err := cover(filepath.Join("/proc/sys", name), value+"\n"); err != nil {
			return err
		}
	}
	// Names are asked from nobody. Where the file is a link to one that is
	// covered now, nobody is known anyway.
	if _, err := os.Stat("/etc/resolv.conf"); err != nil {
		return nil
	}
	return cover("/etc/resolv.conf", "")
}

// cover shows a file of this content in the place of another.
func cover(path, content string) error {
	file, err := os.CreateTemp(inState("sys"), "")
	if err != nil {
		return err
	}
	defer file.Close()
	if _, err := file.WriteString(content); err != nil {
		return err
	}
	if err := file.Chmod(0o644); err != nil {
		return err
	}
	return mount(file.Name(), path, "", unix.MS_BIND, "")
}

func mount(source, target, kind string, flags uintptr, data string) error {
	if err := unix.Mount(source, target, kind, flags, data); err != nil {
		return fmt.Errorf("mount %s: %w", target, err)
	}
	return nil
}
