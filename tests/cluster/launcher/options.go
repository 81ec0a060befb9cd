package launcher

import (
	"fmt"
	"path/filepath"

	"github.com/spf13/pflag"
)

// options is what a user may choose about a cluster.
type options struct {
	// dir holds everything the cluster writes except etcd's data; absolute.
	dir string
	// nodes is the number of simulated nodes, kwok-0 to kwok-(nodes-1).
	nodes int
	// featureGates is handed to the API server, the controller manager and the
	// scheduler alike, since most gates mean something to more than one.
	featureGates string
	// apiserverArgs come last on the API server's command line, so that they
	// win over the defaults chosen here.
	apiserverArgs []string
}

// parseOptions reads the command line that up and run share.
func parseOptions(verb string, args []string) (options, error) {
	var o options
	flags := pflag.NewFlagSet(verb, pflag.ContinueOnError)
	flags.StringVar(&o.dir, "dir", "", "directory for kubeconfig, logs and audit log (made when missing)")
	flags.IntVar(&o.nodes, "nodes", 1, "number of simulated nodes")
	flags.StringVar(&o.featureGates, "feature-gates", "", "feature gates, A=true,B=false")
	flags.StringArrayVar(&o.apiserverArgs, "apiserver-arg", nil, "a further argument of kube-apiserver, such as --v=4 (repeatable)")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("%s: unexpected argument %q", verb, flags.Arg(0))
	}
	if o.dir == "" {
		return o, fmt.Errorf("%s: --dir is missing", verb)
	}
	if o.nodes < 0 {
		return o, fmt.Errorf("%s: --nodes=%d is negative", verb, o.nodes)
	}
	var err error
	o.dir, err = filepath.Abs(o.dir)
	return o, err
}
