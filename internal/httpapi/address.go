package httpapi

import (
	"net/http"
	"net/netip"
	"strings"
)

// maxForwarded bounds how many addresses of an X-Forwarded-For are looked at.
const maxForwarded = 32

// clientAddress returns the client's address: the peer's, unless the peer is a
// trusted proxy. Then X-Forwarded-For is read from its end, where each trusted
// proxy has added whom it saw, up to the first address that is not trusted. What
// a client wrote itself stands before that and is never reached. "Forwarded"
// (RFC 7239) is not read.
func clientAddress(r *http.Request, trusted []netip.Prefix) netip.Addr {
	addr := peer(r)
	if !contains(trusted, addr) {
		return addr
	}
	lines, hops := r.Header["X-Forwarded-For"], 0
	for i := len(lines) - 1; i >= 0; i-- {
		// The list is taken apart from its end: a client can make it long, and only
		// the end counts.
		for rest, more := lines[i], true; more; {
			var text string
			rest, text, more = cutLast(rest)
			hop, ok := parseHop(strings.TrimSpace(text))
			if !ok {
				return addr // what stands before garbage cannot be believed
			}
			addr = hop
			if hops++; hops == maxForwarded || !contains(trusted, addr) {
				return addr
			}
		}
	}
	return addr
}

// cutLast takes the last element off a list; more says whether others stand
// before it.
func cutLast(list string) (before, last string, more bool) {
	i := strings.LastIndexByte(list, ',')
	if i < 0 {
		return "", list, false
	}
	return list[:i], list[i+1:], true
}

func peer(r *http.Request) netip.Addr {
	if ap, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		return ap.Addr().Unmap().WithZone("")
	}
	addr, _ := netip.ParseAddr(r.RemoteAddr)
	return addr.Unmap().WithZone("")
}

func parseHop(text string) (netip.Addr, bool) {
	inner, bracket := strings.CutPrefix(text, "[")
	if bracket && strings.HasSuffix(inner, "]") {
		text = strings.TrimSuffix(inner, "]")
	}
	addr, err := netip.ParseAddr(text)
	if err != nil || (bracket && !addr.Is6()) {
		ap, err := netip.ParseAddrPort(text)
		if err != nil {
			return netip.Addr{}, false
		}
		addr = ap.Addr()
	}
	return addr.Unmap().WithZone(""), true
}

func contains(list []netip.Prefix, addr netip.Addr) bool {
	for _, p := range list {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

// network returns the group that an address counts with: itself for IPv4, its
// /64 for IPv6, where one customer has all of it.
func network(addr netip.Addr) string {
	if !addr.IsValid() {
		return ""
	}
	if addr.Is4() {
		return addr.String()
	}
	p, err := addr.Prefix(64)
	if err != nil {
		return addr.String()
	}
	return p.String()
}

// encrypted reports whether the request came over TLS: to this process, or to a
// trusted proxy that says so.
func encrypted(r *http.Request, trusted []netip.Prefix) bool {
	if r.TLS != nil {
		return true
	}
	if len(trusted) == 0 || !contains(trusted, peer(r)) {
		return false
	}
	proto := r.Header["X-Forwarded-Proto"]
	return len(proto) == 1 && strings.EqualFold(strings.TrimSpace(proto[0]), "https")
}
