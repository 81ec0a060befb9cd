package launcher

import (
	"fmt"
	"net"
	"path/filepath"

	"github.com/spf13/pflag"
)

// options is what a user may choose about a cluster.
type options struct {
	// dir holds everything the cluster writes except etcd's data; absolute.
	dir string
	// nodes is the number of simulated nodes, kwok-0 to kwok-(nodes-1). With
	// none, nothing plays pods and volumes.
	nodes int
	// address is where the API server listens: loopback unless told.
	address net.IP
	// serviceRange is where the addresses of Services come from.
	serviceRange *net.IPNet
	// featureGates is handed to the API server, the controller manager and the
	// scheduler alike, since most gates mean something to more than one.
	featureGates string
	// apiserverArgs come last on the API server's command line, so that they
	// win over the defaults chosen here.
	apiserverArgs []string
	// controllerManagerArgs are the same for the controller manager.
	controllerManagerArgs []string
}

// parseOptions reads the command line that up and run share.
func parseOptions(verb string, args []string) (options, error) {
	var o options
	flags := pflag.NewFlagSet(verb, pflag.ContinueOnError)
	flags.StringVar(&o.dir, "dir", "", "directory for kubeconfig, logs and audit log (made when missing)")
	flags.IntVar(&o.nodes, "nodes", 1, "number of simulated nodes")
	address := flags.String("address", "127.0.0.1", "where the API server listens")
	serviceRange := flags.String("service-range", "10.96.0.0/16", "where the addresses of Services come from")
	flags.StringVar(&o.featureGates, "feature-gates", "", "feature gates, A=true,B=false")
	flags.StringArrayVar(&o.apiserverArgs, "apiserver-arg", nil, "a further argument of kube-apiserver, such as --v=4 (repeatable)")
	flags.StringArrayVar(&o.controllerManagerArgs, "controller-manager-arg", nil,
		"a further argument of kube-controller-manager (repeatable)")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("%s: unexpected argument %q", verb, flags.Arg(0))
	}
	if o.dir == "" {
		return o, fmt.Errorf("%s: --dir is missing", verb)
	}
	var err error
	if o.address = net.ParseIP(*address); o.address.To4() == nil {
		return o, fmt.Errorf("%s: --address=%s is no IPv4 address", verb, *address)
	}
	if _, o.serviceRange, err = net.ParseCIDR(*serviceRange); err != nil {
		return o, fmt.Errorf("%s: --service-range: %w", verb, err)
	}
	if o.nodes < 0 {
		return o, fmt.Errorf("%s: --nodes=%d is negative", verb, o.nodes)
	}
	o.dir, err = filepath.Abs(o.dir)
	return o, err
}
