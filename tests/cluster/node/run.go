package node

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"windlass.test/cluster/machine"
)

// outcome is what keep tells its starter, once, as a line of JSON.
type outcome struct {
	Error string `json:"error,omitempty"`
	Facts *Facts `json:"facts,omitempty"`
}

// Run is a cluster that lives as long as this process and its standard input.
// The logs in its directory stay, for whoever must find out why a test failed.
func Run(args []string) error {
	dir, err := directory("run", args)
	if err != nil {
		return err
	}
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer cancel()
	go func() {
		// Whatever is written to it means nothing; only its end does.
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	keeper, facts, err := startKeeper(ctx, dir, false)
	if err != nil {
		return err
	}
	fmt.Printf("ready %s\n", facts.Kubeconfig)
	_ = keeper.Wait()
	if ctx.Err() == nil {
		return fmt.Errorf("the cluster has ended; see %s", filepath.Join(dir, logName))
	}
	return nil
}

// Up starts a cluster that outlives this process.
func Up(args []string) error {
	dir, err := directory("up", args)
	if err != nil {
		return err
	}
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer cancel()
	began := time.Now()
	_, facts, err := startKeeper(ctx, dir, true)
	if err != nil {
		return err
	}
	fmt.Printf("ready after %.1f s\n", time.Since(began).Seconds())
	fmt.Printf("  export KUBECONFIG=%s\n", facts.Kubeconfig)
	fmt.Printf("  gateway     %s\n", facts.Gateway)
	fmt.Printf("  prometheus  %s\n", facts.Prometheus)
	fmt.Printf("  the same    %s\n", filepath.Join(dir, factsName))
	fmt.Printf("  stop it     testcluster down --dir %s\n", dir)
	return nil
}

// Down stops what Up started in a directory and removes what it wrote.
func Down(args []string) error {
	dir, err := directory("down", args)
	if err != nil {
		return err
	}
	pid, held, err := keeperOf(dir)
	if err != nil {
		return err
	}
	if held {
		if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
			return fmt.Errorf("stop process %d: %w", pid, err)
		}
		for deadline := time.Now().Add(30 * time.Second); held; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				return fmt.Errorf("process %d does not end; see %s", pid, filepath.Join(dir, logName))
			}
			if _, held, err = keeperOf(dir); err != nil {
				return err
			}
		}
	}
	// There when keep was killed, and could not clean up.
	if text, err := os.ReadFile(filepath.Join(dir, factsName)); err == nil {
		var facts Facts
		if err := json.Unmarshal(text, &facts); err != nil {
			return err
		}
		if err := disconnect(facts.layout); err != nil {
			return err
		}
	}
	sweepControlGroups()
	return removeFiles(dir)
}

// directory reads the command line that the verbs share.
func directory(verb string, args []string) (string, error) {
	flags := flag.NewFlagSet(verb+" --real", flag.ContinueOnError)
	dir := flags.String("dir", "", "directory for kubeconfig and logs (made when missing)")
	if err := flags.Parse(args); err != nil {
		return "", err
	}
	if flags.NArg() > 0 {
		return "", fmt.Errorf("%s --real: unexpected argument %q", verb, flags.Arg(0))
	}
	if *dir == "" {
		return "", fmt.Errorf("%s --real: --dir is missing", verb)
	}
	return filepath.Abs(*dir)
}

// startKeeper starts keep and waits until it says that the cluster is ready.
// keep is told to end when the context does; unless it is left alone, it ends
// with this process as well.
func startKeeper(ctx context.Context, dir string, leftAlone bool) (*exec.Cmd, *Facts, error) {
	if err := machine.Check(); err != nil {
		return nil, nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, nil, err
	}
	if pid, held, err := keeperOf(dir); err != nil {
		return nil, nil, err
	} else if held {
		return nil, nil, fmt.Errorf("a cluster runs in %s already (process %d)", dir, pid)
	}
	log, err := os.Create(filepath.Join(dir, logName))
	if err != nil {
		return nil, nil, err
	}
	defer log.Close()
	told, tell, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	defer told.Close()
	command := exec.Command("/proc/self/exe", "keep", dir)
	command.Args[0] = "realnode"
	command.Stdout, command.Stderr = log, log
	command.ExtraFiles = []*os.File{tell}
	// A session of its own: what ends a terminal's processes must not end the
	// one that cleans up after them.
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if leftAlone {
		command.Args = append(command.Args, "left-alone")
	} else if _, err = command.StdinPipe(); err != nil { // closed with this process
		return nil, nil, err
	}
	err = command.Start()
	tell.Close()
	if err != nil {
		return nil, nil, err
	}
	forget := context.AfterFunc(ctx, func() { _ = command.Process.Signal(syscall.SIGTERM) })
	var said outcome
	line, _ := bufio.NewReader(told).ReadBytes('\n')
	if err := json.Unmarshal(line, &said); err != nil || said.Facts == nil {
		_ = command.Process.Signal(syscall.SIGTERM)
		_ = command.Wait()
		if said.Error == "" {
			said.Error = "it ended without a word"
		}
		return nil, nil, fmt.Errorf("%s\nthe logs are in %s", said.Error, dir)
	}
	if leftAlone {
		forget()
	}
	return command, said.Facts, nil
}
