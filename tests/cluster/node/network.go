package node

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	"github.com/vishvananda/netlink"
)

// uplink is the cluster's end of the link to the host.
const uplink = "uplink"

// connect links the host with the network of a process, in the first slot that
// is free. The link is what takes the slot: the kernel refuses a second one of
// the same name, and removes it, with its addresses and routes, when the
// network is gone.
func connect(pid int) (layout, error) {
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return layout{}, fmt.Errorf("read the machine's routes: %w", err)
	}
	for slot := range slots {
		l := layout{Slot: slot}
		if taken(l, routes) {
			continue
		}
		link := &netlink.Veth{
			LinkAttrs:     netlink.LinkAttrs{Name: l.name()},
			PeerName:      uplink,
			PeerNamespace: netlink.NsPid(pid),
		}
		err := netlink.LinkAdd(link)
		if errors.Is(err, syscall.EEXIST) {
			continue
		}
		if err != nil {
			return l, fmt.Errorf("link the host with the cluster: %w", err)
		}
		if link, err := netlink.LinkByName(l.name()); err == nil {
			l.Link = link.Attrs().Index
		}
		return l, address(l)
	}
	return layout{}, fmt.Errorf("all %d places for a cluster on this machine are taken", slots)
}

// disconnect removes the link. The kernel would do so as well, but only once
// the last connection of the network that nobody answers has timed out.
func disconnect(l layout) error {
	link, err := netlink.LinkByName(l.name())
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil
	}
	if err != nil {
		return err
	}
	if link.Attrs().Index != l.Link {
		return nil // it is gone, and another cluster has its place
	}
	return netlink.LinkDel(link)
}

// taken reports whether the machine has routes of its own, other than to
// everywhere, that one of the cluster's would hide.
func taken(l layout, routes []netlink.Route) bool {
	for _, route := range routes {
		if route.Dst == nil {
			continue
		}
		if ones, _ := route.Dst.Mask.Size(); ones == 0 {
			continue
		}
		for _, ours := range []*net.IPNet{l.pods(), l.services(), l.link()} {
			if ours.Contains(route.Dst.IP) || route.Dst.Contains(ours.IP) {
				return true
			}
		}
	}
	return false
}

// address gives the host its address on the link and its routes to Services
// and pods.
func address(l layout) error {
	link, err := raise(l.name(), l.hostIP()+"/30")
	if err != nil {
		return err
	}
	for _, to := range []*net.IPNet{l.pods(), l.services()} {
		route := netlink.Route{LinkIndex: link.Attrs().Index, Dst: to, Gw: net.ParseIP(l.IP())}
		if err := netlink.RouteAdd(&route); err != nil {
			return fmt.Errorf("route %s to the cluster: %w", to, err)
		}
	}
	return nil
}

// arrange is the cluster's side. There is no route to anywhere else, so
// nothing leaves the machine.
func arrange(l layout) error {
	if _, err := raise("lo", ""); err != nil {
		return err
	}
	if _, err := raise(uplink, l.IP()+"/30"); err != nil {
		return err
	}
	// A process on the node finds no way to a Service's address otherwise, and
	// kube-proxy is not asked: its rules act on packets that have a route.
	if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "services"}}); err != nil {
		return fmt.Errorf("make the link that Services are behind: %w", err)
	}
	services, err := raise("services", "")
	if err != nil {
		return err
	}
	route := netlink.Route{LinkIndex: services.Attrs().Index, Dst: l.services(), Src: net.ParseIP(l.IP())}
	if err := netlink.RouteAdd(&route); err != nil {
		return fmt.Errorf("route the Services: %w", err)
	}
	return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644)
}

// raise gives a link an address, unless it is empty, and switches it on.
func raise(name, address string) (netlink.Link, error) {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return nil, fmt.Errorf("network link %s: %w", name, err)
	}
	if address != "" {
		ip, err := netlink.ParseAddr(address)
		if err != nil {
			return nil, err
		}
		if err := netlink.AddrAdd(link, ip); err != nil {
			return nil, fmt.Errorf("address of network link %s: %w", name, err)
		}
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return nil, fmt.Errorf("switch network link %s on: %w", name, err)
	}
	return link, nil
}
