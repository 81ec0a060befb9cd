package launcher

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process names one started component in a way that survives the reuse of
// process ids: a pid alone may belong to somebody else tomorrow, the pair of
// pid and start time does not.
type process struct {
	Name string `json:"name"`
	Pid  int    `json:"pid"`
	// StartTime is the start in clock ticks since boot, field 22 of
	// /proc/PID/stat.
	StartTime uint64   `json:"startTime"`
	Args      []string `json:"args"`

	// exited is closed when a child of this very process has ended; nil for a
	// process read from a file.
	exited chan struct{}
}

// spawnMode says what becomes of a child when its launcher ends.
type spawnMode int

const (
	// detached children live on in a session of their own.
	detached spawnMode = iota
	// bound children are killed by the kernel when the launcher dies, however
	// it dies.
	bound
)

// spawn starts this binary as the component args[0] in the directory workDir,
// with its output going to logDir/NAME.log. Files in inherit are open in the
// child as well.
//
// It must be called on a goroutine that is bound to the process's first thread
// (see the package), since a bound child dies with the thread that started it.
func spawn(logDir, workDir string, args []string, mode spawnMode, inherit ...*os.File) (*process, error) {
	name := args[0]
	log, err := os.Create(filepath.Join(logDir, name+".log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(ownPath(), args...)
	cmd.Args[0] = "testcluster"
	cmd.Dir = workDir
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = inherit
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if mode == bound {
		cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p := &process{Name: name, Pid: cmd.Process.Pid, Args: args, exited: make(chan struct{})}
	p.StartTime, _, err = processStat(p.Pid)
	go func() {
		_ = cmd.Wait() // the log says why it ended; the launcher only needs to know that it did
		close(p.exited)
	}()
	if err != nil {
		return p, fmt.Errorf("%s ended as soon as it was started: %w", name, err)
	}
	return p, nil
}

// ownPath is the file this process runs from. When a newer build has replaced
// it in the meantime, the kernel's own link still leads to the old one; it is
// the second choice only because "ps" would then call every component "exe".
func ownPath() string {
	const link = "/proc/self/exe"
	path, err := os.Readlink(link)
	if err != nil {
		return link
	}
	atPath, err := os.Stat(path)
	if err != nil {
		return link
	}
	running, err := os.Stat(link)
	if err != nil || !os.SameFile(atPath, running) {
		return link
	}
	return path
}

// alive reports whether the very process that was started still runs.
func (p *process) alive() bool {
	start, state, err := processStat(p.Pid)
	return err == nil && start == p.StartTime && state != 'Z' && state != 'X'
}

// signal sends sig unless the process has ended already.
func (p *process) signal(sig syscall.Signal) {
	if p.alive() {
		_ = syscall.Kill(p.Pid, sig)
	}
}

// waitGone waits up to limit for the process to end and reports whether it did.
func (p *process) waitGone(limit time.Duration) bool {
	for deadline := time.Now().Add(limit); p.alive(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}

// stop asks the process to end and kills it when it has not done so in time.
func (p *process) stop(limit time.Duration) {
	p.signal(syscall.SIGTERM)
	if !p.waitGone(limit) {
		p.signal(syscall.SIGKILL)
		p.waitGone(limit)
	}
}

// processStat returns a process's start time in clock ticks and its state
// letter.
func processStat(pid int) (start uint64, state byte, err error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, err
	}
	// The second field is the command in parentheses and may itself hold
	// spaces and parentheses, so counting starts after the last one.
	end := bytes.LastIndexByte(stat, ')')
	fields := strings.Fields(string(stat[end+1:]))
	if end < 0 || len(fields) < 20 {
		return 0, 0, fmt.Errorf("unexpected /proc/%d/stat", pid)
	}
	start, err = strconv.ParseUint(fields[19], 10, 64)
	return start, fields[0][0], err
}

// logTail returns the last lines of a component's log, for error messages.
func logTail(logDir, name string, lines int) string {
	text, err := os.ReadFile(filepath.Join(logDir, name+".log"))
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	if len(all) > lines {
		all = all[len(all)-lines:]
	}
	return strings.Join(all, "\n")
}
