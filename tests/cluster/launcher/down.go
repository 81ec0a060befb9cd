package launcher

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"windlass.test/cluster/machine"
)

// stopLimit is how long each component may take to end by itself.
const stopLimit = 2 * time.Second

// Down stops what up started in a directory, last started first, so that no
// component complains in its log about one it depends on.
func Down(args []string) error {
	o, err := parseOptions("down", args)
	if err != nil {
		return err
	}
	f := filesIn(o.dir)
	// Its processes are numbered otherwise there than here.
	if _, err := os.Stat(filepath.Join(o.dir, machine.Mark)); err == nil {
		return fmt.Errorf("the cluster in %s has a real node: testcluster down --real --dir %s", o.dir, o.dir)
	}
	r, err := f.readRecord()
	if err != nil {
		return err
	}
	if len(r.Processes) == 0 {
		return fmt.Errorf("no cluster in %s", o.dir)
	}
	for _, p := range slices.Backward(r.Processes) {
		p.stop(stopLimit)
		if p.alive() {
			return fmt.Errorf("%s (process %d) does not end", p.Name, p.Pid)
		}
	}
	if r.Scratch != "" {
		if err := os.RemoveAll(r.Scratch); err != nil {
			return err
		}
	}
	return f.remove()
}
