package node

import (
	"net"
	"testing"

	"github.com/vishvananda/netlink"
)

func TestAPlaceWhoseAddressesTheMachineUsesIsLeftAlone(t *testing.T) {
	for text, wanted := range map[string]bool{
		"10.96.3.0/24":   true,  // just these Services
		"10.244.0.0/16":  true,  // around the pods
		"10.201.3.64/26": true,  // within the link's
		"10.96.4.0/24":   false, // the next place's
		"192.0.2.0/24":   false,
		"0.0.0.0/0":      false, // where everything else goes
	} {
		_, to, err := net.ParseCIDR(text)
		if err != nil {
			t.Fatal(err)
		}
		if found := taken(layout{Slot: 3}, []netlink.Route{{Dst: to}}); found != wanted {
			t.Errorf("%s: taken is %t", text, found)
		}
	}
}
