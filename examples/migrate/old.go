package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/bson/primitive"
	"go.mongodb.org/mongo-driver/mongo"
	"go.mongodb.org/mongo-driver/mongo/options"
)

// old is an app of mdb-engine: its users are in a collection of its own, its rules in
// one that all apps of the database share.
type old struct {
	db          *mongo.Database
	slug, users string
	// trustEmails vouches for the addresses, which mdb-engine does not verify.
	trustEmails bool
}

// person is a line of the import.
type person struct {
	Email         string         `json:"email"`
	EmailVerified bool           `json:"email_verified,omitempty"`
	PasswordHash  string         `json:"password_hash,omitempty"`
	Profile       map[string]any `json:"profile,omitempty"`
	Status        string         `json:"status,omitempty"`
	CreatedAt     *time.Time     `json:"created_at,omitempty"`
	Roles         []string       `json:"roles,omitempty"`
	ExternalID    string         `json:"external_id"`
}

// left are the accounts that stay behind.
type left struct{ Guests, Demo int }

// export writes the people of the app as JSON lines. Guests own nothing but a cookie
// that ends with the move, and demo users come from the manifest.
func (o *old) export(ctx context.Context, w io.Writer) (left, error) {
	var behind left
	granted, err := o.granted(ctx)
	if err != nil {
		return behind, err
	}
	// The order of _id is that of their creation, and stays the same when the
	// program runs again.
	cursor, err := o.db.Collection(o.users).Find(ctx, bson.M{"app_id": o.slug}, options.Find().SetSort(bson.D{{Key: "_id", Value: 1}}))
	if err != nil {
		return behind, err
	}
	defer cursor.Close(context.WithoutCancel(ctx))
	lines := json.NewEncoder(w)
	for cursor.Next(ctx) {
		var doc bson.M
		if err := cursor.Decode(&doc); err != nil {
			return behind, err
		}
		switch {
		case doc["is_anonymous"] == true:
			behind.Guests++
		case doc["is_demo"] == true:
			behind.Demo++
		default:
			if err := lines.Encode(o.person(doc, granted)); err != nil {
				return behind, err
			}
		}
	}
	return behind, cursor.Err()
}

// own are the fields that mdb-engine gives a meaning to. Others are the service's and
// become the profile.
var own = []string{
	"_id", "app_id", "email", "password", "password_hash", "role", "roles", "date_created", "created_at", "updated_at", "last_login",
	"is_demo", "is_anonymous", "is_active", "platform_user_id", "app_user_id",
}

func (o *old) person(doc bson.M, granted map[string][]string) person {
	email, _ := doc["email"].(string)
	p := person{Email: email, EmailVerified: o.trustEmails, PasswordHash: text(doc["password_hash"]), ExternalID: id(doc["_id"]), Profile: profile(doc)}
	if p.PasswordHash == "" {
		p.PasswordHash = text(doc["password"])
	}
	if doc["is_active"] == false {
		p.Status = "disabled"
	}
	for _, name := range []string{"date_created", "created_at"} {
		if at, ok := doc[name].(primitive.DateTime); ok {
			created := at.Time().UTC()
			p.CreatedAt = &created
		}
	}
	roles := append([]string{text(doc["role"])}, granted[email]...)
	roles = append(roles, granted[p.ExternalID]...)
	if list, ok := doc["roles"].(bson.A); ok {
		for _, role := range list {
			roles = append(roles, text(role))
		}
	}
	slices.Sort(roles)
	p.Roles = slices.DeleteFunc(slices.Compact(roles), func(role string) bool { return role == "" })
	return p
}

// text returns a string, also one that pymongo stored as bytes: bcrypt.hashpw
// returns bytes.
func text(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case primitive.Binary:
		return string(v.Data)
	default:
		return ""
	}
}

func id(v any) string {
	if oid, ok := v.(primitive.ObjectID); ok {
		return oid.Hex()
	}
	return fmt.Sprint(v)
}

var profileName = regexp.MustCompile(`^[A-Za-z0-9_]{1,64}$`)

// profile takes the service's own fields that are texts, numbers or truth values.
func profile(doc bson.M) map[string]any {
	out := map[string]any{}
	for name, value := range doc {
		if slices.Contains(own, name) || !profileName.MatchString(name) {
			continue
		}
		switch v := value.(type) {
		case string, bool, int32, int64:
			out[name] = v
		case float64:
			if !math.IsNaN(v) && !math.IsInf(v, 0) {
				out[name] = v
			}
		case primitive.ObjectID:
			out[name] = v.Hex()
		}
	}
	return out
}

// rule is a document of the Casbin adapter.
type rule struct {
	Kind string `bson:"ptype"`
	V0   string `bson:"v0"`
	V1   string `bson:"v1"`
	V2   string `bson:"v2"`
	V3   string `bson:"v3"`
}

func (o *old) rules(ctx context.Context) ([]rule, error) {
	cursor, err := o.db.Collection("casbin_policies").Find(ctx, bson.M{})
	if err != nil {
		return nil, err
	}
	var all []rule
	return all, cursor.All(ctx, &all)
}

// granted returns the roles that Casbin knows, by the subject's address or id. Roles
// of roles are among them; nobody has such an address.
func (o *old) granted(ctx context.Context) (map[string][]string, error) {
	all, err := o.rules(ctx)
	out := map[string][]string{}
	for _, r := range all {
		if r.Kind == "g" {
			out[r.V0] = append(out[r.V0], r.V1)
		}
	}
	return out, err
}

// policies are the old rules.
type policies struct {
	// forManifest are those about roles, in the form of the manifest, and denied those that
	// deny something, which the manifest's own model does not know.
	forManifest, denied [][]string
	// people is how many are about single people, who have to be written anew: here a
	// subject is an id.
	people int
}

func (o *old) policies(ctx context.Context) (p policies, err error) {
	all, err := o.rules(ctx)
	for _, r := range all {
		rule := []string{r.V0, r.V1, r.V2}
		switch {
		case r.Kind != "p":
		case strings.Contains(r.V0, "@") || isID(r.V0):
			p.people++
		case r.V3 == "deny":
			p.denied = append(p.denied, rule)
		default:
			p.forManifest = append(p.forManifest, rule)
		}
	}
	return p, err
}

// isID reports whether a subject is the id of a user and no role.
func isID(subject string) bool {
	_, err := primitive.ObjectIDFromHex(subject)
	return err == nil
}
