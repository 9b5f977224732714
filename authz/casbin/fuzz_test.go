package casbin

import (
	"encoding/binary"
	"slices"
	"strings"
	"testing"

	"github.com/casbin/casbin/v2/model"
	"github.com/casbin/casbin/v2/persist"
	"go.mongodb.org/mongo-driver/bson"

	"github.com/mandate-auth/mandate/authz"
)

// FuzzValues writes rules as the stock adapter does and reads them as it does: as
// one line of CSV. Whatever is admitted comes back as it was, so that stock tools
// see the rules that decide here.
func FuzzValues(f *testing.F) {
	f.Add("editor", "documents", "read")
	f.Add("a b", "ä:ö|ü", "r.sub.Nuke()")
	f.Add("#x", "'x'", "\\")
	f.Add("a,b", "\"", " x ")
	f.Add("\u0085", "\u2028", "\ufeff")
	m, err := model.NewModelFromString(ModelRBAC.Text(MatchExact))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, subject, object, action string) {
		r := authz.Rule{Subject: subject, Permission: authz.Permission{Object: object, Action: action}}
		if r.Check() != nil {
			return
		}
		values := ruleRow(r).values("shop")
		m.ClearPolicy()
		if err := persist.LoadPolicyLine(strings.Join(append([]string{"p"}, values...), ", "), m); err != nil {
			t.Fatalf("stock Casbin cannot read %q: %v", values, err)
		}
		if got := m["p"]["p"].Policy; len(got) != 1 || !slices.Equal(got[0], values) {
			t.Fatalf("stock Casbin reads %q as %q", values, got)
		}
		parsed, err := authz.ParsePermission(r.String())
		if err != nil || parsed != r.Permission {
			t.Fatalf("%q is read as %q, %v", r.String(), parsed, err)
		}
	})
}

// FuzzDecode reads documents of any kind as rows. What is taken for a row of the
// app names the app, and says the same when it is written and read again.
func FuzzDecode(f *testing.F) {
	for _, doc := range []bson.M{
		{"ptype": "p", "v0": "a", "v1": "shop", "v2": "b", "v3": "c", "v4": "allow", "v5": ""},
		{"ptype": "p", "v0": "a", "v1": "shop", "v2": "b", "v3": "c"},
		{"ptype": "p", "v0": "a", "v1": "shop", "v2": "b", "v3": "c", "v4": "deny"},
		{"ptype": "p", "v0": "a", "v1": "shop", "v2": "/b/{c}", "v3": "c", "v4": "deny"},
		{"ptype": "g", "v0": "a", "v1": "b", "v2": "shop"},
		{"ptype": "g", "v0": 1, "v1": "b", "v2": "other"},
		{},
	} {
		raw, err := bson.Marshal(doc)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	g := &grammar{name: string(ModelRBACWithDeny), roles: true, deny: true, matching: MatchPath}
	f.Fuzz(func(t *testing.T, raw []byte) {
		doc := bson.Raw(raw)
		if len(raw) < 5 || int(binary.LittleEndian.Uint32(raw)) != len(raw) || doc.Validate() != nil {
			return // the driver hands out no such document
		}
		r, err := decode(doc, "shop", g)
		if err != nil {
			return
		}
		written := bson.M{"ptype": r.ptype()}
		for i, v := range r.values("shop") {
			written[valueFields[i]] = v
		}
		again, err := bson.Marshal(written)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := decode(again, "shop", g); err != nil || got != r {
			t.Fatalf("%+v is %+v when it is read again, %v", r, got, err)
		}
		if _, err := decode(doc, "another", g); err == nil {
			t.Fatalf("%s is a rule of two apps", doc)
		}
	})
}
