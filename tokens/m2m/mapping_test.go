package m2m_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/tokens/m2m"
)

// entra, auth0 and profile are what the manuals of the providers say.
var (
	entra = m2m.Mapping{
		UsernameClaims: []string{"preferred_username", "upn", "unique_name"},
		TokenUseValues: []string{}, ClientIDClaims: []string{"azp", "appid"},
		UserClaims: []string{"name", "email", "given_name", "family_name"}, MachineClaim: "idtyp", MachineValues: []string{"app"},
	}
	auth0 = m2m.Mapping{
		TokenUseValues: []string{}, ClientIDClaims: []string{"azp", "client_id"}, MachineClaim: "gty", MachineValues: []string{"client-credentials"},
	}
	profile = m2m.Mapping{TokenUseValues: []string{}, SubjectIsClient: true}
)

func TestOtherProviders(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		mapping m2m.Mapping
		claims  string
		want    authz.Kind
	}{
		{"Entra: app", entra, `{"idtyp":"app","azp":"c","sub":"o","oid":"o"}`, authz.KindService},
		{"Entra: app of version 1", entra, `{"idtyp":"app","appid":"c","sub":"o"}`, authz.KindService},
		{"Entra: user", entra, `{"azp":"c","sub":"s","preferred_username":"anna@example.com","scp":"read"}`, authz.KindHuman},
		{"Entra: app with a name", entra, `{"idtyp":"app","azp":"c","name":"Worker"}`, ""},
		{"Entra: idtyp is missing", entra, `{"azp":"c","sub":"o"}`, ""},
		{"Auth0: client", auth0, `{"gty":"client-credentials","azp":"c","sub":"c@clients","scope":"read"}`, authz.KindService},
		{"Auth0: password", auth0, `{"gty":"password","azp":"c","sub":"auth0|1"}`, ""},
		{"Auth0: grant of wrong type", auth0, `{"gty":["client-credentials"],"azp":"c"}`, ""},
		{"RFC 9068: client", profile, `{"sub":"c","client_id":"c"}`, authz.KindService},
		{"RFC 9068: user", profile, `{"sub":"u","client_id":"c"}`, ""},
		{"RFC 9068: user with a name", profile, `{"sub":"u","client_id":"c","name":"Anna"}`, authz.KindHuman},
		{"RFC 9068: no subject", profile, `{"client_id":"c"}`, ""},
		{"RFC 9068: subject of wrong type", profile, `{"sub":["c"],"client_id":"c"}`, ""},
	}
	for _, test := range tests {
		if got := detector(t, test.mapping).Kind(parse(t, test.claims)); got != test.want {
			t.Errorf("%s: got %q, want %q", test.name, got, test.want)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		mapping m2m.Mapping
		want    string
	}{
		{"no username claims", m2m.Mapping{UsernameClaims: []string{}}, "username_claims"},
		{"no client id claims", m2m.Mapping{ClientIDClaims: []string{}}, "client_id_claims"},
		{"a machine claim without values", m2m.Mapping{MachineClaim: "gty"}, "need each other"},
		{"values without a machine claim", m2m.Mapping{MachineValues: []string{"app"}}, "need each other"},
		{"nothing but the lack of user claims", m2m.Mapping{TokenUseValues: []string{}}, "subject_is_client"},
		{"an empty name", m2m.Mapping{UserClaims: []string{"name", ""}}, "empty name"},
		{"an empty value", m2m.Mapping{TokenUseValues: []string{""}}, "empty name"},
		{"a claim in two parts", m2m.Mapping{UserClaims: []string{"client_id"}}, "client_id"},
		{"the subject as a user's claim", m2m.Mapping{UsernameClaims: []string{"sub"}}, "sub"},
	}
	for _, test := range tests {
		d, err := m2m.New(test.mapping)
		if d != nil || err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want an error about %q", test.name, err, test.want)
		}
	}
}

// The manifest's text has to become the mapping, and the zero value the default.
func TestMappingFromJSON(t *testing.T) {
	t.Parallel()
	var m m2m.Mapping
	if err := json.Unmarshal([]byte(`{"username_claims":["upn"],"user_claims":["mail"],"token_use_claim":"use","token_use_values":["api"],
		"client_id_claims":["cid"],"scope_claims":["scp"],"machine_claim":"idtyp","machine_values":["app"],"subject_is_client":true}`), &m); err != nil {
		t.Fatal(err)
	}
	want := m2m.Mapping{
		[]string{"upn"}, []string{"mail"}, "use", []string{"api"}, []string{"cid"}, []string{"scp"}, "idtyp", []string{"app"}, true,
	}
	if !reflect.DeepEqual(m, want) {
		t.Errorf("got %+v", m)
	}
	d := detector(t, m)
	m.UserClaims[0] = "changed" // the detector has a copy
	if d.IsMachine(parse(t, `{"use":"api","cid":"c","idtyp":"app","sub":"c","mail":"x"}`)) {
		t.Error("the detector changes with the caller's slices")
	}
	if !detector(t, m2m.Mapping{}).IsMachine(parse(t, `{"token_use":"access","client_id":"svc"}`)) {
		t.Error("the zero value is not the default mapping")
	}
}

func FuzzDetect(f *testing.F) {
	for _, s := range []string{
		`{"token_use":"access","client_id":"svc","scope":"a b"}`, `{"token_use":"access","client_id":"web","username":"anna"}`, `{"scp":["a",1]}`,
		`{"idtyp":"app","azp":"c","name":null}`, `{"gty":"client-credentials","azp":"c"}`, `{"sub":"c","client_id":"c"}`, `null`, `{"sub":{},"client_id":[]}`,
	} {
		f.Add([]byte(s))
	}
	var detectors []*m2m.Detector
	for _, m := range []m2m.Mapping{{}, entra, auth0, profile} {
		detectors = append(detectors, detector(f, m))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var claims map[string]any
		if json.Unmarshal(raw, &claims) != nil {
			return
		}
		for _, d := range detectors {
			machine, human, meta := d.IsMachine(claims), d.RequiresUserContext(claims), d.MetadataOf(claims)
			client, found := d.ClientID(claims)
			switch {
			case machine && human:
				t.Errorf("%s is both", raw)
			case meta.HasUserContext != human || meta.ClientID != client || found != (client != ""):
				t.Errorf("%s: metadata disagrees: %+v", raw, meta)
			case machine && !found:
				t.Errorf("%s: a machine without a client", raw)
			case (d.Kind(claims) == authz.KindService) != machine || (d.Kind(claims) == authz.KindHuman) != human:
				t.Errorf("%s: kind %q", raw, d.Kind(claims))
			}
			for _, scope := range meta.Scopes {
				if err := authz.CheckScope(scope); err != nil {
					t.Errorf("%s: scope %q: %v", raw, scope, err)
				}
			}
			if machine {
				claims["email"] = "a@example.com"
				if d.IsMachine(claims) {
					t.Errorf("%s: still a machine with an address", raw)
				}
				delete(claims, "email")
			}
		}
	})
}

func ExampleMetadataOf() {
	claims := map[string]any{"token_use": "access", "client_id": "service-account-123", "scope": "api/read api/write"}
	meta := m2m.MetadataOf(claims)
	fmt.Println(m2m.IsMachine(claims), meta.ClientID, meta.Scopes, meta.HasUserContext)
	// Output: true service-account-123 [api/read api/write] false
}

// Microsoft Entra ID marks the tokens of applications by "idtyp".
func ExampleNew() {
	d, err := m2m.New(m2m.Mapping{
		UsernameClaims: []string{"preferred_username", "upn"},
		TokenUseValues: []string{}, // Entra has no such claim
		ClientIDClaims: []string{"azp", "appid"},
		MachineClaim:   "idtyp",
		MachineValues:  []string{"app"},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(d.Kind(map[string]any{"idtyp": "app", "azp": "worker"}))
	fmt.Println(d.Kind(map[string]any{"azp": "web", "preferred_username": "anna@example.com"}))
	// Output:
	// service
	// human
}
