package lan

import (
	"net"
	"os"
	"slices"
	"strings"
)

// Addresses are this machine's own, the one that neighbours most likely reach
// first: private IPv4, then other IPv4, then IPv6. Loopback comes last.
func Addresses() []net.IP {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
	}
	var ips []net.IP
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok && !n.IP.IsLinkLocalUnicast() && !n.IP.IsMulticast() {
			ips = append(ips, n.IP)
		}
	}
	slices.SortStableFunc(ips, func(a, b net.IP) int { return rank(a) - rank(b) })
	return ips
}

func rank(ip net.IP) int {
	switch {
	case ip.IsLoopback():
		return 3
	case ip.To4() == nil:
		return 2
	case !ip.IsPrivate():
		return 1
	}
	return 0
}

// Names are the names under which neighbours may know this machine.
func Names() []string {
	names := []string{"localhost"}
	if host, err := os.Hostname(); err == nil && isName(host) {
		short, _, _ := strings.Cut(strings.ToLower(host), ".")
		names = append(names, short, short+".local")
	}
	return names
}

// isName tells whether a host name can stand in a certificate.
func isName(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' || s[0] == '.' {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '.')
	})
}

// Reachable are the base addresses, without a scheme, under which a listener
// can be reached: its own, or with an unspecified one all of this machine's.
func Reachable(listening net.Addr) []string {
	tcp, ok := listening.(*net.TCPAddr)
	if !ok {
		return []string{listening.String()}
	}
	hosts := []net.IP{tcp.IP}
	if tcp.IP == nil || tcp.IP.IsUnspecified() {
		hosts = Addresses()
	}
	var list []string
	for _, ip := range hosts {
		list = append(list, (&net.TCPAddr{IP: ip, Port: tcp.Port}).String())
	}
	return list
}
