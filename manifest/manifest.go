// Package manifest reads the one file that describes an app: parses it
// strictly, fills in environment variables and defaults, and checks it against
// the schema and the rules that a schema cannot say. All faults are reported at
// once, each with where it is, what is wrong and what to do.
//
// A manifest is data. What it means is up to the engine.
package manifest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/mandate-auth/mandate/tokens/secret"
)

// MaxSize is the greatest size of a manifest in bytes.
const MaxSize = 1 << 20

// Manifest is a checked manifest with every default filled in. The keys are
// described in the schema and in docs/manifest.md.
type Manifest struct {
	Slug         string `json:"slug"`
	BasePath     string `json:"base_path"`
	Name         string `json:"name"`
	PublicURL    string `json:"public_url"`
	Environment  string `json:"environment"`
	AuthRequired bool   `json:"auth_required"`
	Auth         Auth   `json:"auth"`

	// settings are those that plainSettings has not.
	settings []Setting
	dir      string // where relative paths begin
}

// Development reports whether the manifest is for a development environment.
func (m *Manifest) Development() bool { return m.Environment == "development" }

// Auth is the key "auth".
type Auth struct {
	Policy          Policy          `json:"policy"`
	Requirements    []Requirement   `json:"requirements"`
	Users           Users           `json:"users"`
	Tokens          Tokens          `json:"tokens"`
	Sessions        Sessions        `json:"sessions"`
	Cookies         Cookies         `json:"cookies"`
	CSRF            CSRF            `json:"csrf"`
	CORS            CORS            `json:"cors"`
	SecurityHeaders SecurityHeaders `json:"security_headers"`
	TrustedProxies  []netip.Prefix  `json:"trusted_proxies"`
	// InternalNetworks are the networks of RequireInternal.
	InternalNetworks []netip.Prefix       `json:"internal_networks"`
	RateLimits       map[string]RateLimit `json:"rate_limits"`
	APIKeys          APIKeys              `json:"api_keys"`
	Clients          Clients              `json:"clients"`
	Issuers          []Issuer             `json:"issuers"`
	OAuth            OAuth                `json:"oauth"`
	Mail             Mail                 `json:"mail"`
	Audit            Audit                `json:"audit"`
	Metrics          Metrics              `json:"metrics"`
}

// Users is the key "auth.users".
type Users struct {
	Enabled              bool         `json:"enabled"`
	Strategy             string       `json:"strategy"`
	CollectionName       string       `json:"collection_name"`
	AllowRegistration    Registration `json:"allow_registration"`
	RegistrationRole     string       `json:"registration_role"`
	AllowAnonymousUsers  bool         `json:"allow_anonymous_users"`
	RequireVerifiedEmail bool         `json:"require_verified_email"`
	DemoUsers            []DemoUser   `json:"demo_users"`
	Password             struct {
		MinLength      int     `json:"min_length"`
		MaxLength      int     `json:"max_length"`
		BlockCommon    bool    `json:"block_common"`
		BlockContext   bool    `json:"block_context"`
		MinEntropyBits float64 `json:"min_entropy_bits"`
		BreachCheck    string  `json:"breach_check"`
		BcryptCost     int     `json:"bcrypt_cost"`
	} `json:"password"`
	Lockout struct {
		MaxFailures int      `json:"max_failures"`
		Window      Duration `json:"window"`
		Duration    Duration `json:"duration"`
	} `json:"lockout"`
}

// DemoUser is one of "auth.users.demo_users".
type DemoUser struct {
	Email    string
	Password secret.Value
	Role     string
}

// UnmarshalJSON reads the password into a value that cannot be printed.
func (d *DemoUser) UnmarshalJSON(raw []byte) error {
	var plain struct{ Email, Password, Role string }
	if err := json.Unmarshal(raw, &plain); err != nil {
		return errors.New("a demo user is an object with email, password and role")
	}
	d.Email, d.Password, d.Role = plain.Email, secret.FromString(plain.Password), plain.Role
	return nil
}

// Tokens is the key "auth.tokens".
type Tokens struct {
	AccessTTL     Duration `json:"access_ttl"`
	RefreshTTL    Duration `json:"refresh_ttl"`
	Algorithm     string   `json:"algorithm"`
	Issuer        string   `json:"issuer"`
	Audience      string   `json:"audience"`
	Leeway        Duration `json:"leeway"`
	Transport     string   `json:"transport"`
	RotationGrace Duration `json:"rotation_grace"`
	KeyRotation   Duration `json:"key_rotation"`
	Revocation    struct {
		Mode         string   `json:"mode"`
		MaxStaleness Duration `json:"max_staleness"`
		PollInterval Duration `json:"poll_interval"`
	} `json:"revocation"`
	BlacklistCollection string `json:"blacklist_collection"`
}

// Sessions is the key "auth.sessions".
type Sessions struct {
	Collection                  string   `json:"collection"`
	MaxPerUser                  int      `json:"max_per_user"`
	OnLimit                     string   `json:"on_limit"`
	IdleTimeout                 Duration `json:"idle_timeout"`
	RememberMeFactor            int      `json:"remember_me_factor"`
	BindDevice                  string   `json:"bind_device"`
	BindIP                      string   `json:"bind_ip"`
	EndOthersOnCredentialChange bool     `json:"end_others_on_credential_change"`
}

// Cookies is the key "auth.cookies".
type Cookies struct {
	SameSite string `json:"same_site"`
	Secure   string `json:"secure"`
	Domain   string `json:"domain"`
}

// CSRF is the key "auth.csrf".
type CSRF struct {
	Enabled        bool     `json:"enabled"`
	TrustedOrigins []string `json:"trusted_origins"`
}

// CORS is the key "auth.cors".
type CORS struct {
	AllowOrigins     []string `json:"allow_origins"`
	AllowCredentials bool     `json:"allow_credentials"`
	AllowHeaders     []string `json:"allow_headers"`
	MaxAge           Duration `json:"max_age"`
}

// SecurityHeaders is the key "auth.security_headers".
type SecurityHeaders struct {
	Enabled bool `json:"enabled"`
	HSTS    struct {
		MaxAge            Duration `json:"max_age"`
		IncludeSubdomains bool     `json:"include_subdomains"`
		Preload           bool     `json:"preload"`
	} `json:"hsts"`
	FrameAncestors string `json:"frame_ancestors"`
	ReferrerPolicy string `json:"referrer_policy"`
}

// Duration is a length of time: in JSON a string of numbers with the units ms,
// s, m, h and d ("15m", "1h30m", "30d"), or a number of seconds.
type Duration time.Duration

// maxDuration bounds a duration to what adds up without overflow.
const maxDuration = 100 * 365 * 24 * time.Hour

var units = map[string]time.Duration{
	"ms": time.Millisecond, "s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour,
}

// UnmarshalJSON reads a duration.
func (d *Duration) UnmarshalJSON(raw []byte) error {
	text := strings.Trim(string(raw), `"`)
	if text == string(raw) {
		seconds, err := strconv.ParseFloat(text, 64)
		if err != nil || seconds < 0 || seconds > maxDuration.Seconds() {
			return fmt.Errorf("%s is not a number of seconds", text)
		}
		*d = Duration(seconds * float64(time.Second))
		return nil
	}
	var total time.Duration
	for rest := text; rest != ""; {
		digits := strings.TrimLeft(rest, "0123456789")
		n, err := strconv.ParseInt(rest[:len(rest)-len(digits)], 10, 32)
		name := digits[:len(digits)-len(strings.TrimLeft(digits, "dhms"))]
		unit, ok := units[name]
		if err != nil || !ok || total+time.Duration(n)*unit > maxDuration || time.Duration(n) > maxDuration/unit {
			return fmt.Errorf("%q is not a duration such as \"15m\", \"1h30m\" or \"30d\"", text)
		}
		total += time.Duration(n) * unit
		rest = digits[len(name):]
	}
	if text == "" {
		return errors.New("an empty text is not a duration")
	}
	*d = Duration(total)
	return nil
}

// String returns the duration in the largest units that hold it exactly.
func (d Duration) String() string {
	rest := time.Duration(d)
	if rest == 0 {
		return "0s"
	}
	var b strings.Builder
	for _, name := range []string{"d", "h", "m", "s", "ms"} {
		if n := rest / units[name]; n > 0 {
			fmt.Fprintf(&b, "%d%s", n, name)
			rest -= n * units[name]
		}
	}
	return b.String()
}

// MarshalJSON writes the duration as String does.
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(d.String()) }

// Options configures reading.
type Options struct {
	// LookupEnv finds environment variables. Default os.LookupEnv.
	LookupEnv func(string) (string, bool)
}

// Load reads the manifest in the file. The error is an [*Error] for a manifest
// with faults.
func Load(path string, opts *Options) (*Manifest, error) {
	f, err := os.Open(path) //nolint:gosec // the service names its own file
	if err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	defer f.Close() //nolint:errcheck // it was only read
	data, err := io.ReadAll(io.LimitReader(f, MaxSize+1))
	if err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	m, err := Parse(data, opts)
	var faults *Error
	if errors.As(err, &faults) {
		faults.Name = path
	}
	if m != nil {
		m.dir = filepath.Dir(path)
	}
	return m, err
}

// Parse reads a manifest. The error is an [*Error] with every fault.
func Parse(data []byte, opts *Options) (*Manifest, error) {
	lookup := os.LookupEnv
	if opts != nil && opts.LookupEnv != nil {
		lookup = opts.LookupEnv
	}
	return newParser(lookup).parse(data)
}
