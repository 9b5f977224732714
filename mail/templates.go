package mail

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	htmltemplate "html/template"
	"io/fs"
	"path"
	"slices"
	"strings"
	texttemplate "text/template"
	"unicode/utf8"

	"golang.org/x/text/language"
)

// Template names what a message is about.
type Template string

// The templates.
const (
	// VerifyEmail asks the owner of an address to confirm it.
	VerifyEmail Template = "verify_email"
	// ResetPassword leads to a new password.
	ResetPassword Template = "reset_password"
	// ChangeEmail asks the owner of the new address to confirm it.
	ChangeEmail Template = "change_email"
	// EmailChanged tells the old address that it is no longer the account's.
	EmailChanged Template = "email_changed"
	// PasswordChanged tells that the password is another one.
	PasswordChanged Template = "password_changed"
	// MagicLink and EmailCode sign in.
	MagicLink Template = "magic_link"
	EmailCode Template = "email_code"
	// Invitation invites somebody to an account.
	Invitation Template = "invitation"
	// AccountExists tells that somebody tried to register with the address.
	AccountExists Template = "account_exists"
	// IdentityLinked and IdentityRemoved tell of accounts elsewhere that sign in.
	IdentityLinked  Template = "identity_linked"
	IdentityRemoved Template = "identity_removed"
	// AccountRecovered tells the owner of an address that an unconfirmed account which
	// had it has lost its password and sessions.
	AccountRecovered Template = "account_recovered"
)

var templateNames = []Template{
	VerifyEmail, ResetPassword, ChangeEmail, EmailChanged, PasswordChanged, MagicLink, EmailCode, Invitation,
	AccountExists, IdentityLinked, IdentityRemoved, AccountRecovered,
}

// TemplateNames returns the templates there are, in a slice of the caller's own.
func TemplateNames() []Template { return slices.Clone(templateNames) }

// ErrTemplate says that a template cannot be used. The message names its file and what to
// do.
var ErrTemplate = errors.New("mail: template")

// layoutFile frames the HTML that is made from texts.
const layoutFile = "layout.html"

//go:embed templates
var embedded embed.FS

// Templates are the messages in every language there is. They are safe for concurrent use.
type Templates struct {
	layout *htmltemplate.Template
	byName map[Template]*translations
}

// translations are one message in its languages, English first: what a matcher falls
// back to.
type translations struct {
	matcher language.Matcher
	all     []*translation
}

// translation is one message in one language.
type translation struct {
	lang          string
	file          string
	subject, text *texttemplate.Template
	html          *htmltemplate.Template // nil where the HTML is made from the text
}

// source is what the files of one translation say.
type source struct{ text, html, textFile, htmlFile string }

type sources map[language.Tag]map[Template]*source

// NewTemplates returns the templates of this package, in English and German, under those
// of overlay, which may be nil. The overlay replaces some or all of them and adds
// languages:
//
//	<language>/<name>.txt    "Subject: …", an empty line, the text (text/template)
//	<language>/<name>.html   the HTML, a whole document (html/template)
//	layout.html              the frame of the HTML that is made from texts
//
// The language is a BCP 47 tag. Where a message has no .html, and so wherever a .txt of the
// overlay stands alone, its HTML is made from its text: paragraphs become paragraphs, one
// that is nothing but the link or the code becomes that. So text and HTML never differ.
// A .html alone goes with the text that this package has.
//
// Every template is executed with sample data. One that does not work, a file that would
// never be used and a language or name that is unknown are [ErrTemplate].
func NewTemplates(overlay fs.FS) (*Templates, error) {
	base, err := fs.Sub(embedded, "templates")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrTemplate, err)
	}
	found, layout := sources{}, ""
	for _, files := range []fs.FS{base, overlay} {
		if files == nil {
			continue
		}
		if err := found.read(files, &layout); err != nil {
			return nil, err
		}
	}
	t := &Templates{byName: map[Template]*translations{}}
	if t.layout, err = htmltemplate.New(layoutFile).Parse(layout); err != nil {
		return nil, broken(layoutFile, err)
	}
	for _, name := range templateNames {
		if t.byName[name], err = found.translations(name); err != nil {
			return nil, err
		}
	}
	return t, t.tryAll()
}

func broken(file string, err error) error {
	return fmt.Errorf("%w %s: %w; put it right or remove the file from the overlay", ErrTemplate, file, err)
}

// read adds the files of one tree; later trees replace earlier ones.
func (s sources) read(files fs.FS, layout *string) error {
	entries, err := fs.ReadDir(files, ".")
	if err != nil {
		return fmt.Errorf("%w: read the overlay: %w", ErrTemplate, err)
	}
	for _, entry := range entries {
		switch name := entry.Name(); {
		case strings.HasPrefix(name, "."):
		case entry.IsDir():
			if err := s.readLanguage(files, name); err != nil {
				return err
			}
		case name == layoutFile:
			if *layout, err = readFile(files, name); err != nil {
				return err
			}
		default:
			return broken(name, errors.New("a template lies in the directory of its language, as in en/verify_email.txt"))
		}
	}
	return nil
}

func (s sources) readLanguage(files fs.FS, dir string) error {
	tag, err := language.Parse(dir)
	if err != nil {
		return broken(dir, errors.New("the directory's name is not a language tag such as fr or pt-BR"))
	}
	entries, err := fs.ReadDir(files, dir)
	if err != nil {
		return fmt.Errorf("%w: read %s: %w", ErrTemplate, dir, err)
	}
	if s[tag] == nil {
		s[tag] = map[Template]*source{}
	}
	replaced := map[Template]*source{}
	for _, entry := range entries {
		file := path.Join(dir, entry.Name())
		if strings.HasPrefix(entry.Name(), ".") {
			continue
		}
		base, kind, _ := strings.Cut(entry.Name(), ".")
		name := Template(base)
		if entry.IsDir() || !slices.Contains(templateNames, name) || kind != "txt" && kind != "html" {
			return broken(file, fmt.Errorf("no message has this name: there are .txt and .html of %v", templateNames))
		}
		text, err := readFile(files, file)
		if err != nil {
			return err
		}
		if replaced[name] == nil {
			replaced[name] = &source{}
		}
		if kind == "txt" {
			replaced[name].text, replaced[name].textFile = text, file
		} else {
			replaced[name].html, replaced[name].htmlFile = text, file
		}
	}
	return s.replace(tag, replaced)
}

func (s sources) replace(tag language.Tag, by map[Template]*source) error {
	for name, one := range by {
		if one.textFile == "" {
			before := s[tag][name]
			if before == nil {
				return broken(one.htmlFile, errors.New("there is no .txt beside it, for those who see no HTML"))
			}
			one.text, one.textFile = before.text, before.textFile
		}
		s[tag][name] = one
	}
	return nil
}

func readFile(files fs.FS, name string) (string, error) {
	raw, err := fs.ReadFile(files, name)
	if err != nil {
		return "", fmt.Errorf("%w: read %s: %w", ErrTemplate, name, err)
	}
	raw = bytes.TrimPrefix(raw, []byte("\ufeff"))
	if !utf8.Valid(raw) {
		return "", broken(name, errors.New("the file is not UTF-8"))
	}
	return strings.ReplaceAll(string(raw), "\r\n", "\n"), nil
}

// translations parses one message in all its languages.
func (s sources) translations(name Template) (*translations, error) {
	var tags []language.Tag
	for tag := range s {
		if s[tag][name] != nil && tag != language.English {
			tags = append(tags, tag)
		}
	}
	slices.SortFunc(tags, func(a, b language.Tag) int { return strings.Compare(a.String(), b.String()) })
	tags = append([]language.Tag{language.English}, tags...)
	out := &translations{matcher: language.NewMatcher(tags)}
	for _, tag := range tags {
		one, err := s[tag][name].parse(tag)
		if err != nil {
			return nil, err
		}
		out.all = append(out.all, one)
	}
	return out, nil
}

var errHead = errors.New(`the first line has to be "Subject: …", the second empty, and then the text`)

func (s *source) parse(tag language.Tag) (*translation, error) {
	head, text, found := strings.Cut(s.text, "\n\n")
	subject, isSubject := strings.CutPrefix(head, "Subject: ")
	if !found || !isSubject || strings.Contains(subject, "\n") || strings.TrimSpace(text) == "" {
		return nil, broken(s.textFile, errHead)
	}
	t := &translation{lang: tag.String(), file: s.textFile}
	var err error
	if t.subject, err = texttemplate.New(s.textFile).Parse(subject); err != nil {
		return nil, broken(s.textFile, err)
	}
	if t.text, err = texttemplate.New(s.textFile).Parse(text); err != nil {
		return nil, broken(s.textFile, err)
	}
	if s.html != "" {
		if t.html, err = htmltemplate.New(s.htmlFile).Parse(s.html); err != nil {
			return nil, broken(s.htmlFile, err)
		}
	}
	return t, nil
}
