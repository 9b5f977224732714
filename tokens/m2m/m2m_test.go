package m2m_test

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/tokens/m2m"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func parse(tb testing.TB, text string) map[string]any {
	tb.Helper()
	var claims map[string]any
	if err := json.Unmarshal([]byte(text), &claims); err != nil {
		tb.Fatal(err)
	}
	return claims
}

func detector(tb testing.TB, m m2m.Mapping) *m2m.Detector {
	tb.Helper()
	d, err := m2m.New(m)
	if err != nil {
		tb.Fatal(err)
	}
	return d
}

const none authz.Kind = ""

// A wrong answer here lets a machine through the guards for people, or a person
// through those for machines.
func TestKind(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, claims string
		want         authz.Kind
	}{
		{"all four criteria", `{"token_use":"access","client_id":"svc","scope":"api/read"}`, authz.KindService},
		{"a machine's token of Cognito", `{"sub":"svc","token_use":"access","scope":"a","auth_time":1,"iss":"i","exp":2,"version":2,"client_id":"svc"}`, authz.KindService},
		{"a user's access token of Cognito", `{"sub":"u","token_use":"access","client_id":"web","username":"anna","auth_time":1,"scope":"openid"}`, authz.KindHuman},
		{"a user's ID token of Cognito", `{"sub":"u","token_use":"id","aud":"web","cognito:username":"anna","email":"a@example.com"}`, authz.KindHuman},

		{"criterion 1: a username", `{"token_use":"access","client_id":"svc","cognito:username":"anna"}`, authz.KindHuman},
		{"criterion 2: an ID token", `{"token_use":"id","client_id":"svc"}`, none},
		{"criterion 2: no use", `{"client_id":"svc"}`, none},
		{"criterion 2: other case", `{"token_use":"Access","client_id":"svc"}`, none},
		{"criterion 2: wrong type", `{"token_use":["access"],"client_id":"svc"}`, none},
		{"criterion 3: no client", `{"token_use":"access"}`, none},
		{"criterion 3: empty client", `{"token_use":"access","client_id":""}`, none},
		{"criterion 3: blank client", `{"token_use":"access","client_id":"  "}`, none},
		{"criterion 3: client of wrong type", `{"token_use":"access","client_id":{"a":1}}`, none},
		{"criterion 3: client with a line break", `{"token_use":"access","client_id":"a\nb"}`, none},
		{"criterion 4: an e-mail address", `{"token_use":"access","client_id":"svc","email":"a@example.com"}`, authz.KindHuman},
		{"criterion 4: a name", `{"token_use":"access","client_id":"svc","name":"Anna"}`, authz.KindHuman},

		{"an e-mail address of null is neither", `{"token_use":"access","client_id":"svc","email":null}`, none},
		{"an empty e-mail address is neither", `{"token_use":"access","client_id":"svc","email":""}`, none},
		{"a blank name is neither", `{"token_use":"access","client_id":"svc","name":" \t"}`, none},
		{"a name of wrong type is neither", `{"token_use":"access","client_id":"svc","name":{"x":1}}`, none},
		{"a user name of wrong type is neither", `{"token_use":"access","client_id":"svc","username":7}`, none},
		{"a service account with an address is neither", `{"sub":"svc","token_use":"access","client_id":"svc","email":"svc@project.example"}`, none},
		{"names are exact", `{"token_use":"access","client_id":"svc","Email":"a@example.com"}`, authz.KindService},
		{"nothing at all", `{}`, none},
		{"null", `null`, none},

		{"sub_type is not for others to set: service", `{"sub":"u","sub_type":"service"}`, none},
		{"sub_type is not for others to set: api_key", `{"sub":"u","sub_type":"api_key","email":"a@example.com"}`, authz.KindHuman},
		{"sub_type is not for others to set: human", `{"token_use":"access","client_id":"svc","sub_type":"human"}`, authz.KindService},
	}
	for _, test := range tests {
		claims := parse(t, test.claims)
		if got := m2m.Kind(claims); got != test.want {
			t.Errorf("%s: %s is %q, want %q", test.name, test.claims, got, test.want)
		}
		if got := m2m.IsMachine(claims); got != (test.want == authz.KindService) {
			t.Errorf("%s: IsMachine is %t", test.name, got)
		}
		if got := m2m.RequiresUserContext(claims); got != (test.want == authz.KindHuman) {
			t.Errorf("%s: RequiresUserContext is %t", test.name, got)
		}
	}
}

// One claim of people that is forgotten turns its bearer into a machine.
func TestEveryClaimOfPeopleCounts(t *testing.T) {
	t.Parallel()
	m := m2m.Default()
	for _, name := range append(m.UsernameClaims, m.UserClaims...) {
		for _, value := range []any{"x", "", nil, true, 1.0, []any{}, map[string]any{}} {
			claims := map[string]any{"token_use": "access", "client_id": "svc", name: value}
			if m2m.IsMachine(claims) {
				t.Errorf("a token with %q of %#v is taken for a machine's", name, value)
			}
			if got := m2m.RequiresUserContext(claims); got != (value == any("x")) {
				t.Errorf("a token with %q of %#v: user context is %t", name, value, got)
			}
		}
	}
}

func TestMetadata(t *testing.T) {
	t.Parallel()
	got := m2m.MetadataOf(parse(t, `{"token_use":"access","client_id":"service-account-123","scope":"api/read api/write"}`))
	want := m2m.Metadata{TokenUse: "access", ClientID: "service-account-123", Scopes: []string{"api/read", "api/write"}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	raw, err := json.Marshal(m2m.MetadataOf(nil))
	if err != nil || string(raw) != `{"token_use":"","client_id":"","scopes":[],"has_user_context":false}` {
		t.Errorf("of no claims: %s, %v", raw, err)
	}
	if got := m2m.MetadataOf(parse(t, `{"token_use":1,"client_id":[],"scope":{},"email":"a@example.com"}`)); got.TokenUse != "" || got.ClientID != "" ||
		len(got.Scopes) != 0 || !got.HasUserContext {
		t.Errorf("of hostile types: %+v", got)
	}
}

// A scope that is read where none was written is a right that nobody granted.
func TestScopes(t *testing.T) {
	t.Parallel()
	many := strings.Repeat("a ", 100)
	distinct := make([]string, authz.MaxScopes+1)
	for i := range distinct {
		distinct[i] = "s" + strings.Repeat("x", i)
	}
	tests := []struct {
		name, claims string
		want         []string
	}{
		{"a string", `{"scope":"a b"}`, []string{"a", "b"}},
		{"more spaces", `{"scope":"  a  b "}`, []string{"a", "b"}},
		{"an empty string", `{"scope":""}`, nil},
		{"a list", `{"scope":["a","b"]}`, []string{"a", "b"}},
		{"under scp", `{"scp":"a b"}`, []string{"a", "b"}},
		{"a list under scp", `{"scp":["a"]}`, []string{"a"}},
		{"scope before scp", `{"scp":"x","scope":"a"}`, []string{"a"}},
		{"a broken scope does not give way to scp", `{"scp":"x","scope":1}`, nil},
		{"twice", `{"scope":"a b a"}`, []string{"a", "b"}},
		{"again and again", `{"scope":"` + many + `"}`, []string{"a"}},
		{"too many", `{"scope":"` + strings.Join(distinct, " ") + `"}`, nil},
		{"a list with a number", `{"scope":["a",1]}`, nil},
		{"a list with an empty one", `{"scope":["a",""]}`, nil},
		{"a list whose item has a space", `{"scope":["a","b c"]}`, nil},
		{"a tab", `{"scope":"a\tb"}`, nil},
		{"a quote", `{"scope":"a \"b\""}`, nil},
		{"not ASCII", `{"scope":"a é"}`, nil},
		{"an object", `{"scope":{"a":true}}`, nil},
		{"null", `{"scope":null}`, nil},
		{"a list in a list", `{"scope":[["a"]]}`, nil},
	}
	d := detector(t, m2m.Mapping{})
	for _, test := range tests {
		got := d.Scopes(parse(t, test.claims))
		if got == nil || strings.Join(got, " ") != strings.Join(test.want, " ") {
			t.Errorf("%s: got %#v, want %v", test.name, got, test.want)
		}
	}
	if got := d.Scopes(map[string]any{"scope": []string{"a", "b"}}); len(got) != 2 {
		t.Errorf("a list of strings: got %v", got)
	}
}

func TestClientID(t *testing.T) {
	t.Parallel()
	d := detector(t, m2m.Mapping{ClientIDClaims: []string{"client_id", "azp", "appid", "cid"}})
	tests := []struct{ name, claims, want string }{
		{"first name", `{"client_id":"a"}`, "a"},
		{"last name", `{"cid":"a"}`, "a"},
		{"two that agree", `{"client_id":"a","azp":"a"}`, "a"},
		{"two that disagree", `{"client_id":"a","azp":"b"}`, ""},
		{"one of a wrong type", `{"client_id":1,"azp":"b"}`, ""},
		{"a later one of a wrong type", `{"client_id":"a","azp":null}`, ""},
		{"not ASCII", `{"client_id":"ä"}`, ""},
		{"with DEL", `{"client_id":"a\u007f"}`, ""},
		{"longest", `{"client_id":"` + strings.Repeat("a", 255) + `"}`, strings.Repeat("a", 255)},
		{"too long", `{"client_id":"` + strings.Repeat("a", 256) + `"}`, ""},
		{"none", `{}`, ""},
	}
	for _, test := range tests {
		got, found := d.ClientID(parse(t, test.claims))
		if got != test.want || found != (test.want != "") {
			t.Errorf("%s: got %q, %t, want %q", test.name, got, found, test.want)
		}
	}
	if id, found := m2m.ClientID(parse(t, `{"client_id":"svc"}`)); id != "svc" || !found {
		t.Errorf("default mapping: %q, %t", id, found)
	}
	if id, found := m2m.ClientID(parse(t, `{"azp":"svc"}`)); id != "" || found {
		t.Errorf("the default mapping knows client_id only: %q, %t", id, found)
	}
}
