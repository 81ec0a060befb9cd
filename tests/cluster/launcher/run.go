package launcher

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// Run is a cluster in the foreground, for a test that starts it as a child: it
// ends with its standard input, with a signal, and when it is killed. The files
// in its directory stay, for whoever must find out why a test failed.
func Run(args []string) error {
	o, err := parseOptions("run", args)
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
	c, err := start(ctx, o, bound)
	if err != nil {
		return err
	}
	defer c.kill()
	fmt.Printf("ready %s\n", c.files.kubeconfig)
	for _, p := range c.processes {
		go func() {
			<-p.exited
			if ctx.Err() == nil {
				// Not the end of the cluster: a test may have killed it to see
				// what its client does then.
				fmt.Fprintf(os.Stderr, "testcluster: %s (process %d) has ended\n", p.Name, p.Pid)
			}
		}()
	}
	<-ctx.Done()
	return nil
}
