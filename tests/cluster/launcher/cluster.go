package launcher

import (
	"context"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"
)

// startLimit is the time in which a cluster must be ready. On an idle machine
// it takes a few seconds; the rest is for machines busy with a build.
const startLimit = 2 * time.Minute

// cluster is a control plane that this process has started.
type cluster struct {
	files     files
	scratch   scratch
	processes []*process // in the order of their start
}

// start brings a cluster up and returns when it is ready for a test. On an
// error nothing is left running.
func start(ctx context.Context, o options, mode spawnMode) (_ *cluster, err error) {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()

	c := &cluster{files: filesIn(o.dir)}
	old, err := c.files.readRecord()
	if err != nil {
		return nil, err
	}
	for _, p := range old.Processes {
		if p.alive() {
			return nil, fmt.Errorf("a cluster runs in %s already (%s, process %d): stop it with \"testcluster down --dir %s\"",
				o.dir, p.Name, p.Pid, o.dir)
		}
	}
	if err := c.files.remove(); err != nil {
		return nil, err
	}

	defer func() {
		if err != nil {
			c.kill()
		}
	}()
	if c.scratch, err = newScratch(); err != nil {
		return nil, err
	}
	var ports [3]heldPort
	loopback := net.IPv4(127, 0, 0, 1)
	for i, address := range [3]net.IP{o.address, loopback, loopback} {
		if ports[i], err = holdPort(address); err != nil {
			return nil, err
		}
		defer ports[i].release()
	}
	apiPort, controllerPort, schedulerPort := ports[0].number, ports[1].number, ports[2].number
	if err := c.files.write(apiPort, o); err != nil {
		return nil, err
	}

	// Each waits only for what it would otherwise retry slowly for: the
	// components' own retries are a second or more apart.
	if err := c.spawn(etcdArgs(c.scratch), mode, c.scratch.lock); err != nil {
		return nil, err
	}
	if err := c.spawn(apiserverArgs(c.files, c.scratch, apiPort, o), mode); err != nil {
		return nil, err
	}
	api, err := newAPI(c.files.kubeconfig)
	if err != nil {
		return nil, err
	}
	if err := c.wait(ctx, "the API server to be ready", api.ready); err != nil {
		return nil, err
	}
	rest := [][]string{
		controllerManagerArgs(c.files, controllerPort, o),
		schedulerArgs(c.files, schedulerPort, o),
	}
	if o.nodes > 0 {
		rest = append(rest, kwokArgs(c.files))
	}
	for _, args := range rest {
		if err := c.spawn(args, mode); err != nil {
			return nil, err
		}
	}
	for _, step := range []struct {
		what string
		ask  func(context.Context) error
	}{
		{"the nodes to be created", func(ctx context.Context) error { return api.createNodes(ctx, o.nodes) }},
		{"the storage class to be created", func(ctx context.Context) error { return api.createStorageClass(ctx, o.nodes) }},
		{"the controller manager to be healthy", healthz(controllerPort)},
		{"the scheduler to be healthy", healthz(schedulerPort)},
		{"the service account \"default\" in \"default\"", api.defaultAccount},
		{"the nodes to be ready", func(ctx context.Context) error { return api.nodesReady(ctx, o.nodes) }},
	} {
		if err := c.wait(ctx, step.what, step.ask); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// spawn starts a component and notes it in pids.json at once, so that a
// launcher that dies half way leaves a directory that down can clean up.
func (c *cluster) spawn(args []string, mode spawnMode, inherit ...*os.File) error {
	p, err := spawn(c.files.dir, c.scratch.dir, args, mode, inherit...)
	if p != nil {
		c.processes = append(c.processes, p)
	}
	if err != nil {
		return err
	}
	return c.files.writeRecord(record{Processes: c.processes, Scratch: c.scratch.dir})
}

// wait asks until the answer is good. It gives up at once when a component has
// ended, and then shows the end of that component's log.
func (c *cluster) wait(ctx context.Context, what string, ask func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	for _, p := range c.processes {
		go func() {
			select {
			case <-p.exited:
				cancel(fmt.Errorf("waiting for %s: %s has ended; the end of its log:\n%s",
					what, p.Name, logTail(c.files.dir, p.Name, 15)))
			case <-ctx.Done():
			}
		}()
	}
	for {
		attempt, done := context.WithTimeout(ctx, 5*time.Second)
		err := ask(attempt)
		done()
		if err == nil {
			return nil
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			switch cause := context.Cause(ctx); cause {
			case context.DeadlineExceeded:
				return fmt.Errorf("waited %v for %s: %w", startLimit, what, err)
			case context.Canceled:
				return fmt.Errorf("stopped while waiting for %s", what)
			default:
				return cause
			}
		}
	}
}

// kill ends every component at once. Nothing is lost that anybody wants: the
// data goes away with the cluster.
func (c *cluster) kill() {
	for _, p := range c.processes {
		p.signal(syscall.SIGKILL)
	}
	for _, p := range c.processes {
		p.waitGone(5 * time.Second)
	}
	_ = os.RemoveAll(c.scratch.dir)
}
