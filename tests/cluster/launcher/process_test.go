package launcher

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

func TestAHeldPortIsNobodyElsesButTheSharers(t *testing.T) {
	held, err := holdPort(net.IPv4(127, 0, 0, 1))
	if err != nil {
		t.Fatal(err)
	}
	defer held.release()
	address := net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: held.number}
	if other, err := net.ListenTCP("tcp4", &address); err == nil {
		other.Close()
		t.Error("a listener without port sharing got the held port")
	}
	// What a component does with --permit-port-sharing.
	share := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var set error
		err := raw.Control(func(fd uintptr) {
			const reusePort = 15 // SO_REUSEPORT, which package syscall lacks
			set = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, reusePort, 1)
		})
		if err != nil {
			return err
		}
		return set
	}}
	listener, err := share.Listen(t.Context(), "tcp4", address.String())
	if err != nil {
		t.Fatalf("the component cannot listen: %v", err)
	}
	defer listener.Close()
	// Many, as the kernel spreads connections over all that listen.
	for range 20 {
		connection, err := net.DialTCP("tcp4", nil, &address)
		if err != nil {
			t.Fatalf("a connection went astray: %v", err)
		}
		connection.Close()
	}
}

func TestAReusedProcessIdIsNotOurProcess(t *testing.T) {
	start, _, err := processStat(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	self := process{Name: "self", Pid: os.Getpid(), StartTime: start}
	if !self.alive() {
		t.Error("this process does not recognise itself")
	}
	earlier := process{Name: "earlier", Pid: os.Getpid(), StartTime: start - 1}
	if earlier.alive() {
		t.Error("a process that started at another time passes for this one")
	}
	earlier.stop(time.Second) // must not end this test
}

func TestStopKillsWhatDoesNotListen(t *testing.T) {
	command := exec.Command("sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.05; done")
	out, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil { // the trap is set
		t.Fatal(err)
	}
	start, _, err := processStat(command.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	stubborn := process{Name: "stubborn", Pid: command.Process.Pid, StartTime: start}
	stubborn.stop(100 * time.Millisecond)
	if stubborn.alive() {
		t.Error("it still runs")
	}
	_ = command.Wait()
}

func TestRemoveLeavesWhatIsNotOurs(t *testing.T) {
	dir := t.TempDir()
	o, err := parseOptions("run", []string{"--dir", dir})
	if err != nil {
		t.Fatal(err)
	}
	f := filesIn(dir)
	if err := f.write(1, o); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"etcd.log", "audit.log", "audit-2030-01-02T03-04-05.678.log", "mine.log", "audit-of-mine.log"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.remove(); err != nil {
		t.Fatal(err)
	}
	left, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	if len(left) != 2 || filepath.Base(left[0]) != "audit-of-mine.log" || filepath.Base(left[1]) != "mine.log" {
		t.Errorf("left: %v", left)
	}
}
