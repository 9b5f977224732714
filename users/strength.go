package users

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"strings"
	"unicode/utf8"

	"github.com/trustelem/zxcvbn"
	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"

	"github.com/mandate-auth/mandate/engine/event"
)

// BreachMode says what a password from a known breach does.
type BreachMode string

// The modes. In both that ask, a checker that fails is reported and the
// password is judged without it: an outage elsewhere must not stop sign-ups.
const (
	BreachOff    BreachMode = "off"
	BreachWarn   BreachMode = "warn"
	BreachRefuse BreachMode = "refuse"
)

// Policy is what a new password has to satisfy (NIST SP 800-63B-4 section
// 3.1.1.2). There are no rules of composition: length and the commonness of the
// whole password decide.
type Policy struct {
	// MinLength and MaxLength count Unicode code points after NFC. Defaults 15
	// and 256.
	MinLength, MaxLength int
	// AllowCommon admits passwords that attackers try first.
	AllowCommon bool
	// AllowContext admits passwords that consist of words of the context.
	AllowContext bool
	// MinEntropyBits is the least estimated entropy. Default 0.
	MinEntropyBits float64
	// Breach says what a password from a known breach does. Default off.
	Breach BreachMode
}

func (p *Policy) setDefaults() {
	p.MinLength = cmp.Or(p.MinLength, 15)
	p.MaxLength = cmp.Or(p.MaxLength, 256)
	p.Breach = cmp.Or(p.Breach, BreachOff)
}

// The codes of what is wrong with a password.
const (
	CodeTooShort = "password_too_short"
	CodeTooLong  = "password_too_long"
	CodeCommon   = "password_common"
	CodeBreached = "password_breached"
)

// Reason says one thing that is wrong with a password, for people.
type Reason struct {
	// Code is one of the codes of passwords, or "invalid_field".
	Code string
	// Message says what to do.
	Message string
}

// Report is the judgement of a password.
type Report struct {
	// OK says whether the policy admits the password.
	OK bool
	// Length is its length in code points.
	Length int
	// EntropyBits estimates how hard it is to guess, as a power of two.
	EntropyBits float64
	// Reasons are everything that is wrong with it, none when it is OK.
	Reasons []Reason
}

const (
	// estimateLength is how many code points are looked at: the cost of the
	// estimate explodes with the length of inputs that are made for it (half a
	// second at 72, some 15 ms at 32). Each further code point counts as one
	// that is guessed among ten, as the estimate itself counts what it knows
	// nothing about.
	estimateLength = 32
	// commonGuesses is how many guesses a password has to withstand when it is
	// made of words, repeats, sequences or dates.
	commonGuesses = 1e9
	// contextRest is how many code points must be left when the words of the
	// context are taken out.
	contextRest = 8
)

// CheckPassword judges password by policy. context are words that belong to the
// service or the user: names, the parts of the e-mail address. It asks no
// breach collection.
func CheckPassword(policy Policy, password string, context ...string) Report {
	policy.setDefaults()
	if !utf8.ValidString(password) {
		return Report{Reasons: []Reason{{CodeInvalidField, "must be valid UTF-8"}}}
	}
	password = norm.NFC.String(password)
	r := Report{Length: utf8.RuneCountInString(password)}
	refuse := func(code, format string, args ...any) {
		r.Reasons = append(r.Reasons, Reason{code, fmt.Sprintf(format, args...)})
	}
	if r.Length < policy.MinLength {
		refuse(CodeTooShort, "must have at least %d characters; a few words make a good one", policy.MinLength)
	}
	if r.Length > policy.MaxLength {
		refuse(CodeTooLong, "must have at most %d characters", policy.MaxLength)
	}
	words := contextWords(context)
	known := words
	if policy.AllowContext {
		known = nil
	}
	estimate := zxcvbn.PasswordStrength(firstRunes(password, estimateLength), known)
	guesses := math.Max(1, estimate.Guesses) * math.Pow(10, math.Min(200, float64(max(0, r.Length-estimateLength))))
	r.EntropyBits = math.Log2(guesses)
	patterned := false
	for _, match := range estimate.Sequence {
		patterned = patterned || match.Pattern != "bruteforce"
	}
	if !policy.AllowCommon && patterned && guesses < commonGuesses {
		refuse(CodeCommon, "is among the first that attackers try; avoid common words, repeats and sequences")
	}
	if !policy.AllowContext && mostlyContext(password, words) {
		refuse(CodeCommon, "must not consist of the name of the service or of your own address")
	}
	if r.EntropyBits < policy.MinEntropyBits {
		refuse(CodeCommon, "is too easy to guess: about %.0f bits, %.0f are needed", r.EntropyBits, policy.MinEntropyBits)
	}
	r.OK = len(r.Reasons) == 0
	return r
}

func firstRunes(s string, n int) string {
	for i := range s {
		if n == 0 {
			return s[:i]
		}
		n--
	}
	return s
}

// contextWords takes the context apart into words of four letters or more.
func contextWords(context []string) []string {
	var out []string
	for _, text := range context {
		folded := cases.Fold().String(norm.NFC.String(text))
		for _, word := range append(strings.FieldsFunc(folded, func(r rune) bool {
			return strings.ContainsRune(" .-_@+/", r)
		}), folded) {
			if utf8.RuneCountInString(word) >= 4 {
				out = append(out, word)
			}
		}
	}
	return out
}

// mostlyContext reports whether little is left of password without the words.
func mostlyContext(password string, words []string) bool {
	rest := cases.Fold().String(password)
	found := false
	for _, word := range words {
		if strings.Contains(rest, word) {
			found = true
			rest = strings.ReplaceAll(rest, word, "")
		}
	}
	return found && utf8.RuneCountInString(rest) < contextRest
}

// checkNew judges a new password of the user with the address, breach
// collection included. The error is a [FieldError] of field.
func (s *Store) checkNew(ctx context.Context, field, password, email string) error {
	var report Report
	// The estimate costs up to some milliseconds of a processor: it waits its
	// turn with the hashes.
	if err := s.config.Hasher.run(ctx, func() {
		report = CheckPassword(s.config.Password, password, append([]string{s.config.App, email}, s.config.Context...)...)
	}); err != nil {
		return err
	}
	if !report.OK {
		return &FieldError{Field: field, Code: report.Reasons[0].Code, Message: report.Reasons[0].Message}
	}
	if s.config.Password.Breach == BreachOff {
		return nil
	}
	breached, err := s.config.Breach.Breached(ctx, password)
	switch {
	case err != nil:
		s.report(ctx, event.BreachCheckFailed, event.Failure, "", "")
		return nil //nolint:nilerr // reported; an outage elsewhere must not stop sign-ups
	case !breached:
		return nil
	case s.config.Password.Breach == BreachWarn:
		s.report(ctx, event.PasswordBreached, event.Failure, "", "")
		return nil
	default:
		return &FieldError{Field: field, Code: CodeBreached, Message: "has appeared in a data breach; choose another one"}
	}
}
