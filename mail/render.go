package mail

import (
	"errors"
	"fmt"
	htmltemplate "html/template"
	"net/url"
	"slices"
	"strings"
	texttemplate "text/template"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/language"
)

// Data is what a message can say. What a message has no use for is left out by its
// template. Every value becomes one line of bounded length, so that whoever chose it can
// write no message of their own into ours.
type Data struct {
	// App is the name of the service that people know, required.
	App string
	// Link is a URL of http or https, Code what to type. The messages that ask for
	// something need one of them. They are shown as they are.
	Link, Code string
	// Lifetime is how long they are good for, shown in whole units, rounded down.
	Lifetime time.Duration
	// Email is the address concerned, NewEmail the one that takes its place.
	Email, NewEmail string
	// Provider is the name of the service whose account was linked or removed.
	Provider string
	// InvitedBy is who invites: better an address than a name that they chose.
	InvitedBy string
	// Time is when it happened and IP from where, as far as known.
	Time time.Time
	IP   string
}

// view is what the templates see.
type view struct {
	Lang, App, Link, Code, Lifetime, Email, NewEmail, Provider, InvitedBy, Time, IP string
}

// needsAction are the messages that ask for something.
var needsAction = []Template{VerifyEmail, ResetPassword, ChangeEmail, MagicLink, EmailCode, Invitation}

const (
	maxSubjectRunes = 150
	maxValueRunes   = 100
	maxAddressRunes = 254
	maxLink         = 2048
)

// Render returns the message name in the language that fits lang best, a BCP 47 tag; in
// English where none does. The subject is one line whatever data holds. Data that the
// message cannot be made from wraps [ErrInvalidMessage].
func (t *Templates) Render(name Template, lang string, data Data) (subject, text, html string, err error) {
	all := t.byName[name]
	if all == nil {
		return "", "", "", fmt.Errorf("%w: no message has the name %q", ErrInvalidMessage, name)
	}
	if err := data.check(name); err != nil {
		return "", "", "", err
	}
	wanted, err := language.Parse(lang)
	if err != nil {
		wanted = language.English
	}
	_, i, confidence := all.matcher.Match(wanted)
	if confidence == language.No {
		i = 0
	}
	return t.execute(all.all[i], data.view(all.all[i].lang))
}

func (d *Data) check(name Template) error {
	switch {
	case oneLine(d.App, 1) == "":
		return fmt.Errorf("%w: the app has no name", ErrInvalidMessage)
	case d.Link == "" && d.Code == "" && slices.Contains(needsAction, name):
		return fmt.Errorf("%w: %s needs a link or a code", ErrInvalidMessage, name)
	case d.Link != "" && !validLink(d.Link):
		return fmt.Errorf("%w: the link has to be an http or https URL of at most %d bytes", ErrInvalidMessage, maxLink)
	case oneLine(d.Code, maxValueRunes) != d.Code:
		return fmt.Errorf("%w: the code has to be one line of at most %d characters", ErrInvalidMessage, maxValueRunes)
	}
	return nil
}

func validLink(s string) bool {
	if len(s) > maxLink || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= unicode.MaxASCII || strings.ContainsRune("<>\"\\^`{|}", r) }) {
		return false
	}
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Host != "" && u.User == nil
}

func (d *Data) view(lang string) *view {
	v := &view{
		Lang: lang, App: oneLine(d.App, maxValueRunes), Link: d.Link, Code: d.Code,
		Email: oneLine(d.Email, maxAddressRunes), NewEmail: oneLine(d.NewEmail, maxAddressRunes),
		Provider: oneLine(d.Provider, maxValueRunes), InvitedBy: oneLine(d.InvitedBy, maxValueRunes), IP: oneLine(d.IP, maxValueRunes),
	}
	words := wordsOf(lang)
	if d.Lifetime > 0 {
		v.Lifetime = words.duration(d.Lifetime)
	}
	if !d.Time.IsZero() {
		v.Time = words.time(d.Time)
	}
	return v
}

// oneLine returns s as one line of at most limit characters that is valid UTF-8, does not
// turn the order of the text around it and begins no URL.
func oneLine(s string, limit int) string {
	s = strings.ToValidUTF8(s, "\ufffd")
	s = strings.Map(func(r rune) rune {
		if disruptive(r) {
			return ' '
		}
		return r
	}, strings.ReplaceAll(s, "://", " "))
	s = strings.Join(strings.Fields(s), " ")
	if utf8.RuneCountInString(s) > limit {
		s = strings.TrimSpace(string([]rune(s)[:limit]))
	}
	return s
}

func (t *Templates) execute(one *translation, v *view) (subject, text, html string, err error) {
	fail := func(err error) (string, string, string, error) { return "", "", "", broken(one.file, err) }
	if subject, err = run(one.subject, v); err != nil {
		return fail(err)
	}
	if text, err = run(one.text, v); err != nil {
		return fail(err)
	}
	subject, text = oneLine(subject, maxSubjectRunes), tidy(text)
	if one.html == nil {
		html, err = runHTML(t.layout, frame{Lang: v.Lang, App: v.App, Subject: subject, Paragraphs: paragraphs(text, v)})
	} else {
		html, err = runHTML(one.html, v)
	}
	if err != nil {
		return fail(err)
	}
	return subject, text, html, nil
}

func run(t *texttemplate.Template, v *view) (string, error) {
	var out strings.Builder
	err := t.Execute(&out, v)
	return out.String(), err
}

func runHTML(t *htmltemplate.Template, data any) (string, error) {
	var out strings.Builder
	err := t.Execute(&out, data)
	return out.String(), err
}

// tidy leaves one empty line where what was left out has left several.
func tidy(text string) string {
	var out []string
	for line := range strings.SplitSeq(text, "\n") {
		line = strings.TrimRight(line, " \t\r")
		if line != "" || len(out) > 0 && out[len(out)-1] != "" {
			out = append(out, line)
		}
	}
	return strings.TrimSpace(strings.Join(out, "\n")) + "\n"
}

// frame is what the layout sees.
type frame struct {
	Lang, App, Subject string
	Paragraphs         []paragraph
}

// paragraph is a link, a code or lines of text.
type paragraph struct {
	Link, Code string
	Lines      []string
}

// paragraphs divides a text. No value holds a line break, so none makes a paragraph.
func paragraphs(text string, v *view) (out []paragraph) {
	for part := range strings.SplitSeq(strings.TrimSpace(text), "\n\n") {
		switch part {
		case v.Link:
			out = append(out, paragraph{Link: part})
		case v.Code:
			out = append(out, paragraph{Code: part})
		default:
			out = append(out, paragraph{Lines: strings.Split(part, "\n")})
		}
	}
	return out
}

// carries reports whether a message is of no use without its link or code.
func carries(name Template) bool {
	return slices.Contains([]Template{VerifyEmail, ResetPassword, ChangeEmail, MagicLink, EmailCode, Invitation}, name)
}

// tryAll executes every template with all data and with as little as there can be.
func (t *Templates) tryAll() error {
	full := Data{
		App: "App", Link: "https://app.example/a?b=c&d=e", Code: "123456", Lifetime: 30 * time.Minute,
		Email: "old@app.example", NewEmail: "new@app.example", Provider: "Provider", InvitedBy: "somebody@app.example",
		Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), IP: "192.0.2.1",
	}
	for _, name := range templateNames {
		for _, one := range t.byName[name].all {
			for _, data := range []Data{{App: full.App, Link: full.Link}, {App: full.App, Code: full.Code}, full} {
				subject, text, _, err := t.execute(one, data.view(one.lang))
				if err != nil {
					return err
				}
				if data == full && (subject == "" || strings.TrimSpace(text) == "") {
					return broken(one.file, errHead)
				}
				if data == full && carries(name) && !strings.Contains(text, data.Link) && !strings.Contains(text, data.Code) {
					return broken(one.file, errors.New("it shows neither the link nor the code, and nobody could use it"))
				}
			}
		}
	}
	return nil
}
