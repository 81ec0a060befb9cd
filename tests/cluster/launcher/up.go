package launcher

import (
	"context"
	"fmt"
	"os/signal"
	"syscall"
	"time"
)

// Up starts a cluster that outlives this process.
func Up(args []string) error {
	o, err := parseOptions("up", args)
	if err != nil {
		return err
	}
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer cancel()
	began := time.Now()
	c, err := start(ctx, o, detached)
	if err != nil {
		return err
	}
	fmt.Printf("ready after %.1f s\n", time.Since(began).Seconds())
	fmt.Printf("  export KUBECONFIG=%s\n", c.files.kubeconfig)
	fmt.Printf("  audit log   %s\n", c.files.auditLog)
	fmt.Printf("  stop it     testcluster down --dir %s\n", c.files.dir)
	return nil
}
