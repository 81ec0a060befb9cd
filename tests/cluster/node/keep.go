package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
)

// order is what keep tells init, on its standard input: as soon as it comes,
// the network is there.
type order struct {
	Layout layout `json:"layout"`
	// Dir and Programs are paths of the host.
	Dir      string `json:"dir"`
	Programs string `json:"programs"`
}

// Keep makes the namespaces, has everything started inside, and cleans up when
// it has ended. It ends it when its standard input does (unless it is left
// alone) or at SIGTERM.
//
// It must be called on the process's first thread, with which the kernel ends
// what is inside.
func Keep(args []string) error {
	tell := os.NewFile(3, "tell")
	syscall.CloseOnExec(3)
	dir, leftAlone := args[0], len(args) > 1
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	if !leftAlone {
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			stop <- syscall.SIGTERM
		}()
	}
	held, err := lock(dir)
	if err != nil {
		say(tell, outcome{Error: err.Error()})
		return err
	}
	defer held.Close()
	sweepControlGroups()
	err = keep(dir, tell, stop)
	if err != nil {
		say(tell, outcome{Error: err.Error()})
	}
	return err
}

func keep(dir string, tell *os.File, stop <-chan os.Signal) error {
	programs, err := programsOf()
	if err != nil {
		return err
	}
	report, reports, err := os.Pipe()
	if err != nil {
		return err
	}
	inside := exec.Command("/proc/self/exe", "init")
	inside.Args[0] = "realnode"
	inside.Stdout, inside.Stderr = os.Stdout, os.Stderr
	inside.ExtraFiles = []*os.File{reports}
	inside.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWUTS,
		Pdeathsig:  syscall.SIGKILL,
	}
	orders, err := inside.StdinPipe()
	if err != nil {
		return err
	}
	if err := inside.Start(); err != nil {
		return fmt.Errorf("make the namespaces: %w", err)
	}
	reports.Close()
	ended := make(chan struct{})
	go func() {
		// The kernel ends it only after everything else inside.
		_ = inside.Wait()
		close(ended)
	}()
	end := func() {
		_ = inside.Process.Kill()
		<-ended
	}

	l, err := connect(inside.Process.Pid)
	if err != nil {
		end()
		return err
	}
	if err = makeControlGroups(l); err == nil {
		err = json.NewEncoder(orders).Encode(order{l, dir, programs})
		err = errors.Join(err, orders.Close())
	}
	if err == nil {
		// The report comes when all is ready or something has failed; its end
		// without a word, when everything has ended.
		said := make(chan outcome, 1)
		go func() {
			var o outcome
			if err := json.NewDecoder(report).Decode(&o); err != nil {
				o.Error = "the first process inside ended; see " + filepath.Join(dir, logName)
			}
			said <- o
		}()
		select {
		case <-stop:
			err = errors.New("stopped before it was ready")
		case o := <-said:
			if o.Facts == nil {
				err = errors.New(o.Error)
				break
			}
			o.Facts.Kubeconfig = filepath.Join(dir, "kubeconfig")
			o.Facts.Init = inside.Process.Pid
			o.Facts.layout = l
			if err = writeFacts(dir, o.Facts); err == nil {
				say(tell, o)
				select {
				case <-stop:
				case <-ended:
					err = errors.New("the first process inside ended")
				}
			}
		}
	}
	end()
	_ = os.Remove(filepath.Join(dir, factsName)) // not there when it was never ready
	return errors.Join(err, disconnect(l), removeControlGroups(l.name()))
}

// programsOf is the directory of testcluster: the one above that of this
// program.
func programsOf() (string, error) {
	own, err := os.Executable()
	if err != nil {
		return "", err
	}
	programs := filepath.Dir(filepath.Dir(own))
	if _, err := os.Stat(filepath.Join(programs, "testcluster")); err != nil {
		return "", fmt.Errorf("the control plane is not built: %w", err)
	}
	return programs, nil
}

func writeFacts(dir string, facts *Facts) error {
	text, err := json.MarshalIndent(facts, "", "  ")
	if err != nil {
		return err
	}
	path := filepath.Join(dir, factsName)
	if err := os.WriteFile(path+".new", append(text, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// say tells the starter, who may be gone.
func say(tell *os.File, o outcome) {
	_ = json.NewEncoder(tell).Encode(o)
	_ = tell.Close()
}
