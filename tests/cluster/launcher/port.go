package launcher

import (
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// heldPort is a free port that nobody else can take before the
// component it is meant for listens on it.
//
// Looking for a free port and giving its number to a program that binds it
// later is a race: between the two, another cluster or any outgoing connection
// may get it. Here the launcher stays bound (without listening) with
// SO_REUSEPORT, and the component binds the same port with
// --permit-port-sharing. The kernel never gives out a bound port by itself,
// and only the listening socket receives connections.
type heldPort struct {
	number int
	fd     int
}

// holdPort takes a free port of an IPv4 address of this machine.
func holdPort(address net.IP) (heldPort, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return heldPort{}, fmt.Errorf("hold a port: %w", err)
	}
	bind := func() (int, error) {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
			return 0, err
		}
		if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte(address.To4())}); err != nil {
			return 0, err
		}
		address, err := unix.Getsockname(fd)
		if err != nil {
			return 0, err
		}
		return address.(*unix.SockaddrInet4).Port, nil
	}
	number, err := bind()
	if err != nil {
		unix.Close(fd)
		return heldPort{}, fmt.Errorf("hold a port: %w", err)
	}
	return heldPort{number: number, fd: fd}, nil
}

// release gives up the launcher's hold; by then the component must listen.
func (p heldPort) release() {
	_ = unix.Close(p.fd)
}
