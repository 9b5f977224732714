package mail_test

import (
	"errors"
	netmail "net/mail"
	"strings"
	"testing"
	"unicode"

	"github.com/mandate-auth/mandate/mail"
)

// hostile are addresses with which mail of other software went to somebody else, or
// brought headers along: next-auth CVE-2022-35924 and CVE-2022-31127, oauth2-proxy
// CVE-2026-40574, and their relatives.
var hostile = []string{
	"", " ", "@", "a@", "@b", "a", "a b@example.com", "a@b@example.com", "a@example.com@evil.example", `"a@evil.example"@example.com`,
	"victim@example.com,evil@evil.example", "victim@example.com;evil@evil.example", "victim@example.com evil@evil.example",
	"victim@example.com, evil@evil.example", "evil@evil.example,victim@example.com", "a,b@example.com",
	"victim@example.com\r\nBcc: evil@evil.example", "victim@example.com\nBcc: evil@evil.example", "victim@example.com\rBcc: evil@evil.example",
	"victim@example.com%0ABcc:evil@evil.example", "victim@example.com>\r\nRCPT TO:<evil@evil.example", "victim@example.com\x00@evil.example",
	"victim@example.com\u0085Bcc: x", "victim@example.com\u2028Bcc: x", "Ann <ann@example.com>", "<ann@example.com>", "Ann ann@example.com",
	"ann@example.com <evil@evil.example>", `"ann@example.com" <evil@evil.example>`, "ann@example.com (evil)", "(evil)ann@example.com",
	"mailto:ann@example.com", "ann@[192.0.2.1]", "ann@example.com.", "ann@.example.com", "ann@example..com", ".ann@example.com", "ann.@example.com",
	"a..b@example.com", "ann@-example.com", "ann@exa_mple.com", "ann@exa mple.com", "@relay.example:ann@example.com", `ann\@evil.example@example.com`,
	`a\b@example.com`, `"ann"@example.com`, "ann@example.com>", "<ann@example.com", "group:ann@example.com;", "undisclosed-recipients:;",
	"ann＠evil.example@example.com", "ann，b@example.com", "a\u202eb@example.com", "a\u200bb@example.com", "a\u00a0b@example.com", "\xff@example.com",
	"ann@example.com\t", "\tann@example.com", " ann@example.com", "ann@example.com ", "<a href=x>@example.com", "ann@<b>example.com", "ann@exam\u200bple.com@x",
	"ann@example.com NOTIFY=NEVER", "ann@example.com> ORCPT=rfc822;evil", strings.Repeat("a", 65) + "@example.com", "a@" + strings.Repeat("a", 64) + ".example",
	"a@" + strings.Repeat("a.", 127) + "example", "ann@" + strings.Repeat("x", 300) + ".example",
}

func TestParseAddress(t *testing.T) {
	t.Parallel()
	good := map[string]string{
		"ann@example.com":                      "ann@example.com",
		"Ann.B+tag@Example.COM":                "Ann.B+tag@example.com",
		"a!#$%&'*+-/=?^_`{|}~b@x.example":      "a!#$%&'*+-/=?^_`{|}~b@x.example",
		"ann@bücher.example":                   "ann@xn--bcher-kva.example",
		"jürgen@example.com":                   "jürgen@example.com",
		"用户@例え.テスト":                            "用户@xn--r8jz45g.xn--zckzah",
		"ann@localhost":                        "ann@localhost",
		strings.Repeat("a", 64) + "@x.example": strings.Repeat("a", 64) + "@x.example",
	}
	for in, want := range good {
		if got, err := mail.ParseAddress(in); err != nil || got != want {
			t.Errorf("%q is %q, %v, want %q", in, got, err, want)
		}
	}
	for _, in := range hostile {
		got, err := mail.ParseAddress(in)
		if err == nil {
			t.Errorf("%q passes for the address %q", in, got)
		} else if !errors.Is(err, mail.ErrInvalidMessage) {
			t.Errorf("%q: %v does not wrap ErrInvalidMessage", in, err)
		}
		if err != nil && strings.Contains(in, "evil") && strings.Contains(err.Error(), "evil") {
			t.Errorf("the error repeats the address: %v", err)
		}
	}
}

// FuzzAddress looks for what passes and is more than one address, to this package or to
// the standard library.
func FuzzAddress(f *testing.F) {
	for _, s := range hostile {
		f.Add(s)
	}
	f.Add("ann@example.com")
	f.Add("jürgen@bücher.example")
	f.Fuzz(func(t *testing.T, s string) {
		got, err := mail.ParseAddress(s)
		if err != nil {
			if !errors.Is(err, mail.ErrInvalidMessage) {
				t.Errorf("%q: %v", s, err)
			}
			return
		}
		local, domain, _ := strings.Cut(got, "@")
		if strings.ContainsAny(got, "\r\n\x00,;:<>()[]\\\" \t") || strings.Contains(domain, "@") || local == "" || domain == "" ||
			strings.ContainsFunc(got, unicode.IsControl) || strings.ContainsFunc(domain, func(r rune) bool { return r > unicode.MaxASCII }) {
			t.Errorf("%q passes as %q", s, got)
		}
		if again, err := mail.ParseAddress(got); err != nil || again != got {
			t.Errorf("%q becomes %q and then %q, %v", s, got, again, err)
		}
		if list, err := netmail.ParseAddressList(got); err != nil || len(list) != 1 || list[0].Address != got || list[0].Name != "" {
			t.Errorf("%q reads as %v, %v", got, list, err)
		}
	})
}
