package mail_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mandate-auth/mandate/mail"
)

func templates(t testing.TB, overlay map[string]string) *mail.Templates {
	t.Helper()
	out, err := mail.NewTemplates(files(overlay))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func files(by map[string]string) fstest.MapFS {
	out := fstest.MapFS{}
	for name, text := range by {
		out[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return out
}

// full is data that answers every question a template can have.
func full() mail.Data {
	return mail.Data{
		App: "Shop", Link: "https://shop.example/verify#token=abc&x=y", Code: "123456", Lifetime: 30 * time.Minute, Email: "ann@example.com",
		NewEmail: "new@example.com", Provider: "Google", InvitedBy: "bob@example.com",
		Time: time.Date(2026, 3, 4, 5, 6, 7, 0, time.FixedZone("x", 3600)), IP: "192.0.2.1",
	}
}

// Every message is there in both languages, says the same thing twice and holds nothing
// that calls home.
func TestEveryTemplate(t *testing.T) {
	t.Parallel()
	ts := templates(t, nil)
	if len(mail.TemplateNames()) != 12 {
		t.Errorf("%d templates", len(mail.TemplateNames()))
	}
	subjects := map[string]mail.Template{}
	for _, name := range mail.TemplateNames() {
		for _, lang := range []string{"en", "de"} {
			subject, text, html, err := ts.Render(name, lang, full())
			if err != nil {
				t.Fatal(err)
			}
			if other, there := subjects[subject]; there {
				t.Errorf("%s and %s have the subject %q", name, other, subject)
			}
			subjects[subject] = name
			if !strings.Contains(html, `<html lang="`+lang+`">`) {
				t.Errorf("%s in %s: %s", name, lang, html)
			}
			for _, bad := range []string{"{{", "<no value>", "%!", "\n\n\n", "  "} {
				if strings.Contains(subject+text, bad) {
					t.Errorf("%s in %s holds %q:\n%s", name, lang, bad, text)
				}
			}
			for _, bad := range []string{"<img", "src=", "url(", "<script", "<link", "<form", "ZgotmplZ", "@import"} {
				if strings.Contains(html, bad) {
					t.Errorf("%s in %s holds %q", name, lang, bad)
				}
			}
			if n := strings.Count(text, "https://"); n > 1 || n != strings.Count(html, "href=") || strings.Count(html, "https://") != 2*n {
				t.Errorf("%s in %s has %d links in its text, and %d in its HTML", name, lang, n, strings.Count(html, "href="))
			}
			for paragraph := range strings.SplitSeq(strings.TrimSpace(text), "\n\n") {
				if escaped := strings.NewReplacer("&", "&amp;", "+", "&#43;").Replace(paragraph); !strings.Contains(html, escaped) {
					t.Errorf("%s in %s: the HTML lacks %q", name, lang, paragraph)
				}
			}
			advice := "not you"
			if lang == "de" {
				advice = "nicht"
			}
			if name != mail.Invitation && !strings.Contains(text, advice) {
				t.Errorf("%s in %s does not say what to do if it was not you:\n%s", name, lang, text)
			}
		}
	}
	for _, name := range []mail.Template{mail.VerifyEmail, mail.ResetPassword, mail.ChangeEmail, mail.MagicLink, mail.EmailCode, mail.Invitation} {
		_, text, _, err := ts.Render(name, "en", full())
		if err != nil || !strings.Contains(text, full().Link+"\n") || !strings.Contains(text, "\n123456\n") || !strings.Contains(text, "30 minutes") {
			t.Errorf("%s, %v:\n%s", name, err, text)
		}
		data := full()
		data.Link, data.Code = "", ""
		if _, _, _, err := ts.Render(name, "en", data); !errors.Is(err, mail.ErrInvalidMessage) {
			t.Errorf("%s without link and code: got %v, want ErrInvalidMessage", name, err)
		}
	}
}

func TestRenderVerifyEmail(t *testing.T) {
	t.Parallel()
	subject, text, html, err := templates(t, nil).Render(mail.VerifyEmail, "en", full())
	if err != nil {
		t.Fatal(err)
	}
	want := `The address ann@example.com was given to Shop. Please confirm that it is yours.

Open this link:

https://shop.example/verify#token=abc&x=y

Or enter this code where you were asked for it:

123456

It is good for 30 minutes and can be used once.

This was asked for on 4 March 2026, 04:06 UTC from 192.0.2.1. If it was not you, do not confirm it: whoever asked may have chosen the password. Without the confirmation nothing happens.
`
	if diff := cmp.Diff(want, text); diff != "" || subject != "Confirm your e-mail address for Shop" {
		t.Errorf("%q (-want +got):\n%s", subject, diff)
	}
	for _, part := range []string{
		`<a href="https://shop.example/verify#token=abc&amp;x=y">https://shop.example/verify#token=abc&amp;x=y</a>`, `letter-spacing:2px">123456</p>`, "<p>Open this link:</p>",
	} {
		if !strings.Contains(html, part) {
			t.Errorf("the HTML lacks %s:\n%s", part, html)
		}
	}
}

func TestLanguages(t *testing.T) {
	t.Parallel()
	ts := templates(t, map[string]string{
		"fr/verify_email.txt":    "Subject: Bonjour {{.App}}\n\n{{.Lifetime}}, {{.Time}}\n{{.Link}}\n",
		"pt-BR/verify_email.txt": "Subject: Olá {{.App}}\n\n{{.Link}}\n",
	})
	tests := map[string]string{
		"en": "Confirm", "en-GB": "Confirm", "de": "Bestätigen", "de-CH": "Bestätigen", "DE_at": "Bestätigen", "fr-CA": "Bonjour", "pt-BR": "Olá", "pt": "Olá",
		"": "Confirm", "xx": "Confirm", "ja": "Confirm", "not a tag": "Confirm", "../de": "Confirm", strings.Repeat("x", 10000): "Confirm",
	}
	for lang, want := range tests {
		if subject, _, _, err := ts.Render(mail.VerifyEmail, lang, full()); err != nil || !strings.HasPrefix(subject, want) {
			t.Errorf("in %.20q: %q, %v, want %s", lang, subject, err, want)
		}
	}
	// What a language lacks is in English, not missing.
	if subject, _, _, err := ts.Render(mail.ResetPassword, "fr", full()); err != nil || !strings.HasPrefix(subject, "Choose") {
		t.Errorf("%q, %v", subject, err)
	}
	// Without words for a language, units are those that all have.
	if _, text, html, err := ts.Render(mail.VerifyEmail, "fr", full()); err != nil || !strings.HasPrefix(text, "30 min, 2026-03-04 04:06 UTC\n") || !strings.Contains(html, `lang="fr"`) {
		t.Errorf("%q, %v", text, err)
	}
}

func TestOverlay(t *testing.T) {
	t.Parallel()
	ts := templates(t, map[string]string{
		"layout.html":            `<html lang="{{.Lang}}"><b>{{.App}}</b>{{range .Paragraphs}}[{{.Link}}{{.Code}}{{range .Lines}}{{.}}|{{end}}]{{end}}`,
		"en/verify_email.txt":    "\ufeffSubject: Mine, {{.App}}\r\n\r\nDear {{.Email}},\r\nclick:\r\n\r\n{{.Link}}\r\n",
		"en/reset_password.html": `<a href="{{.Link}}" title="{{.App}}">{{.Email}}</a>`,
		"de/magic_link.txt":      "Subject: Hallo\n\n{{.Link}}\n",
		"de/magic_link.html":     `<p>{{.IP}}</p>`,
		".hidden":                "x", "en/.hidden": "x",
	})
	// A text of the overlay brings its HTML along.
	subject, text, html, err := ts.Render(mail.VerifyEmail, "en", full())
	if err != nil || subject != "Mine, Shop" || text != "Dear ann@example.com,\nclick:\n\nhttps://shop.example/verify#token=abc&x=y\n" ||
		html != `<html lang="en"><b>Shop</b>[Dear ann@example.com,|click:|][https://shop.example/verify#token=abc&amp;x=y]` {
		t.Errorf("%q\n%s\n%s\n%v", subject, text, html, err)
	}
	// HTML alone goes with the text that is there.
	data := full()
	data.Email, data.App = `<script>"x"`, `"><script>`
	_, text, html, err = ts.Render(mail.ResetPassword, "en", data)
	if err != nil || !strings.Contains(text, "Somebody asked for a new password") ||
		html != `<a href="https://shop.example/verify#token=abc&amp;x=y" title="&#34;&gt;&lt;script&gt;">&lt;script&gt;&#34;x&#34;</a>` {
		t.Errorf("%s\n%s\n%v", text, html, err)
	}
	subject, text, html, err = ts.Render(mail.MagicLink, "de", full())
	if err != nil || subject != "Hallo" || text != full().Link+"\n" || html != "<p>192.0.2.1</p>" {
		t.Errorf("%q\n%s\n%s\n%v", subject, text, html, err)
	}
}

// What would fail when somebody waits for a mail fails at the start, and says where.
func TestBrokenOverlays(t *testing.T) {
	t.Parallel()
	const good = "Subject: S\n\ntext\n"
	tests := []struct{ file, text, says string }{
		{"en/verify_email.txt", "", "first line"},
		{"en/verify_email.txt", "Hello\n\ntext", "first line"},
		{"en/verify_email.txt", "Subject: S\ntext", "first line"},
		{"en/verify_email.txt", "Subject: S\nX: y\n\ntext", "first line"},
		{"en/verify_email.txt", "Subject: S\n\n \n", "first line"},
		{"en/verify_email.txt", "Subject: {{if not .IP}}S{{end}}\n\ntext", "first line"},
		{"en/verify_email.txt", "Subject: S\n\n{{if not .IP}}text{{end}}", "first line"},
		{"en/verify_email.txt", "Subject: {{.App\n\ntext", "unclosed"},
		{"en/verify_email.txt", "Subject: S\n\n{{.Nobody}}", "Nobody"},
		{"en/verify_email.txt", "Subject: S\n\n{{if .IP}}{{.Nobody}}{{end}}", "Nobody"},
		{"en/verify_email.txt", "Subject: S\n\n{{template \"x\"}}", "x"},
		{"en/verify_email.txt", "Subject: S\xff\n\ntext", "UTF-8"},
		{"en/verify_email.txt", "Subject: S\n\ntext", "neither the link nor the code"},
		{"en/email_code.txt", "Subject: S\n\ntext", "neither the link nor the code"},
		{"en/verify_email.html", "{{.Nobody}}", "Nobody"},
		{"en/verify_email.html", "<a href='{{if .App}}\"{{else}}'{{end}}>", "verify_email"},
		{"en/verify_mail.txt", good, "no message has this name"},
		{"en/verify_email.md", good, "no message has this name"},
		{"en/verify_email.txt.bak", good, "no message has this name"},
		{"en/sub/verify_email.txt", good, "no message has this name"},
		{"fr/verify_email.html", "<p>", "no .txt"},
		{"klingonisch/verify_email.txt", good, "language tag"},
		{"verify_email.txt", good, "directory of its language"},
		{"layout.html", "{{.Nobody}}", "Nobody"},
		{"layout.html", "{{range .Paragraphs}}", "layout.html"},
	}
	for _, tt := range tests {
		_, err := mail.NewTemplates(files(map[string]string{tt.file: tt.text}))
		file := tt.file
		if dir, _, deep := strings.Cut(file, "/"); deep && strings.Contains(file, "sub/") {
			file = dir + "/sub"
		}
		if tt.says == "language tag" {
			file = "klingonisch"
		}
		if !errors.Is(err, mail.ErrTemplate) || !strings.Contains(err.Error(), tt.says) || tt.file != "layout.html" && !strings.Contains(err.Error(), file) {
			t.Errorf("%s with %q: got %v, want its name and %q", tt.file, tt.text, err, tt.says)
		}
	}
}

// Whoever chose a value cannot write a message of their own into ours.
func TestHostileData(t *testing.T) {
	t.Parallel()
	ts := templates(t, nil)
	for _, a := range injections {
		data := full()
		for _, field := range []*string{&data.App, &data.Email, &data.NewEmail, &data.Provider, &data.InvitedBy, &data.IP} {
			*field = "x" + a + "https://evil.example\n\nhttps://evil.example\n\ny"
		}
		for _, name := range mail.TemplateNames() {
			subject, text, html, err := ts.Render(name, "en", data)
			if err != nil {
				t.Fatalf("%q: %v", a, err)
			}
			_, clean, _, err := ts.Render(name, "en", full())
			if err != nil {
				t.Fatal(err)
			}
			if strings.Count(text, "\n") != strings.Count(clean, "\n") || strings.Contains(text, "https://evil") || strings.Contains(html, "https://evil") ||
				strings.Contains(html, "<script") || strings.ContainsAny(subject, "\r\n\x00\u2028\u202e") {
				t.Errorf("%s with %q:\n%s\n%s", name, a, subject, text)
			}
			m := &mail.Message{From: "a@shop.example", To: "ann@example.com", Subject: subject, Text: text, HTML: html}
			if err := m.Validate(); err != nil {
				t.Errorf("%s with %q cannot be sent: %v", name, a, err)
			}
		}
	}
}

func TestBadData(t *testing.T) {
	t.Parallel()
	ts := templates(t, nil)
	bad := map[string]func(*mail.Data){
		"no app":         func(d *mail.Data) { d.App = " \n" },
		"script":         func(d *mail.Data) { d.Link = "javascript:alert(1)" },
		"local":          func(d *mail.Data) { d.Link = "/verify" },
		"no host":        func(d *mail.Data) { d.Link = "https:///x" },
		"user":           func(d *mail.Data) { d.Link = "https://shop.example@evil.example/" },
		"line break":     func(d *mail.Data) { d.Link = "https://shop.example/\nx" },
		"space":          func(d *mail.Data) { d.Link = "https://shop.example/ x" },
		"quote":          func(d *mail.Data) { d.Link = `https://shop.example/"x` },
		"beyond ASCII":   func(d *mail.Data) { d.Link = "https://shöp.example/" },
		"long link":      func(d *mail.Data) { d.Link = "https://shop.example/" + strings.Repeat("x", 2048) },
		"code, lines":    func(d *mail.Data) { d.Code = "1\n2" },
		"code, too long": func(d *mail.Data) { d.Code = strings.Repeat("1", 101) },
	}
	for name, change := range bad {
		data := full()
		change(&data)
		if _, _, _, err := ts.Render(mail.VerifyEmail, "en", data); !errors.Is(err, mail.ErrInvalidMessage) {
			t.Errorf("%s: got %v, want ErrInvalidMessage", name, err)
		}
	}
	if _, _, _, err := ts.Render("nobody", "en", full()); !errors.Is(err, mail.ErrInvalidMessage) {
		t.Errorf("an unknown name: got %v, want ErrInvalidMessage", err)
	}
}

// Nothing may seem to be good for longer than it is.
func TestDurations(t *testing.T) {
	t.Parallel()
	ts := templates(t, map[string]string{
		"en/verify_email.txt": "Subject: S\n\n[{{.Lifetime}}]\n\n{{.Link}}\n", "de/verify_email.txt": "Subject: S\n\n[{{.Lifetime}}] {{.Time}}\n\n{{.Link}}\n",
	})
	tests := []struct {
		d      time.Duration
		en, de string
	}{
		{0, "", ""},
		{time.Second, "1 second", "1 Sekunde"},
		{59 * time.Second, "59 seconds", "59 Sekunden"},
		{time.Minute, "1 minute", "1 Minute"},
		{119 * time.Second, "1 minute", "1 Minute"},
		{30 * time.Minute, "30 minutes", "30 Minuten"},
		{time.Hour, "1 hour", "1 Stunde"},
		{time.Hour + 59*time.Second, "1 hour", "1 Stunde"},
		{90 * time.Minute, "90 minutes", "90 Minuten"},
		{24 * time.Hour, "1 day", "1 Tag"},
		{36 * time.Hour, "36 hours", "36 Stunden"},
		{7 * 24 * time.Hour, "7 days", "7 Tage"},
		{7*24*time.Hour - time.Second, "6 days", "6 Tage"},
		{50*time.Hour + 59*time.Minute, "50 hours", "50 Stunden"},
		{5*time.Hour + 59*time.Minute, "359 minutes", "359 Minuten"},
	}
	for _, tt := range tests {
		data := full()
		data.Lifetime = tt.d
		_, en, _, err := ts.Render(mail.VerifyEmail, "en", data)
		_, de, _, err2 := ts.Render(mail.VerifyEmail, "de", data)
		if err != nil || err2 != nil || !strings.HasPrefix(en, "["+tt.en+"]\n") || !strings.HasPrefix(de, "["+tt.de+"] 4. März 2026, 04:06 Uhr (UTC)\n") {
			t.Errorf("%s: %q and %q, %v, %v", tt.d, en, de, err, err2)
		}
	}
}

func TestTemplateNamesAreOnesOwn(t *testing.T) {
	t.Parallel()
	mail.TemplateNames()[0] = "changed"
	if slices.Contains(mail.TemplateNames(), "changed") {
		t.Error("a caller can change the list")
	}
}

// FuzzRender looks for data that gets out of its place.
func FuzzRender(f *testing.F) {
	ts := templates(f, nil)
	f.Add("Shop", "https://shop.example/x", "123456", "bob@example.com", "en", uint8(0))
	f.Add("S\r\nBcc: x", "javascript:alert(1)", "1\n\n2", "http://evil.example\n\nhttp://evil.example", "de", uint8(7))
	f.Add("<script>", "https://shop.example/?a=<b>", "<b>", "\u202e\x00", "", uint8(4))
	f.Fuzz(func(t *testing.T, app, link, code, by, lang string, n uint8) {
		name := mail.TemplateNames()[int(n)%len(mail.TemplateNames())]
		data := mail.Data{App: app, Link: link, Code: code, InvitedBy: by, Provider: by, Email: by, NewEmail: by, IP: by}
		subject, text, html, err := ts.Render(name, lang, data)
		if err != nil {
			if !errors.Is(err, mail.ErrInvalidMessage) {
				t.Errorf("%v", err)
			}
			return
		}
		m := &mail.Message{From: "a@shop.example", To: "ann@example.com", Subject: subject, Text: text, HTML: html}
		if err := m.Validate(); err != nil {
			t.Errorf("what was rendered cannot be sent: %v", err)
		}
		if strings.Contains(html, "<script") || strings.Count(html, "href=") > 1 || strings.Count(html, "<a ") > 1 {
			t.Errorf("%s", html)
		}
	})
}
