package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/mongo"
	"go.uber.org/goleak"

	"github.com/mandate-auth/mandate/localmongo"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// oldDatabase is a server with what seed makes.
func oldDatabase(t *testing.T) (*localmongo.Server, *mongo.Database) {
	t.Helper()
	server, err := localmongo.Start(t.Context(), &localmongo.Options{Listen: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close(context.Background()) })
	db := server.Client().Database("old")
	if err := seed(t.Context(), db); err != nil {
		t.Fatal(err)
	}
	return server, db
}

func contains(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("no %q in:\n%s", part, text)
		}
	}
}

func TestShow(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	if err := show(t.Context(), &out); err != nil {
		t.Fatal(err)
	}
	contains(t, out.String(), "2 imported, 0 there already, 1 refused; left behind: 1 guests, 1 demo users",
		"0 imported, 2 there already, 1 refused", "password_hash: has an unknown form", `["editor","orders","write"]`,
		"1 rules are about single people", "roles [editor user]", "her hash was  $2b$10$…", "and is now    $mandate$p=0$2a$12$")
}

func TestExport(t *testing.T) {
	t.Parallel()
	_, db := oldDatabase(t)
	var out bytes.Buffer
	from := &old{db: db, slug: "shop", users: "shop_users", trustEmails: true}
	behind, err := from.export(t.Context(), &out)
	if err != nil || behind.Guests != 1 || behind.Demo != 1 {
		t.Fatalf("left behind: %+v, %v", behind, err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 3 {
		t.Fatalf("%d lines: %s", len(lines), out.String())
	}
	var ada map[string]any
	if err := json.Unmarshal([]byte(lines[0]), &ada); err != nil {
		t.Fatal(err)
	}
	hash, _ := ada["password_hash"].(string)
	external, _ := ada["external_id"].(string)
	if ada["email"] != "ada@example.com" || ada["email_verified"] != true || !strings.HasPrefix(hash, "$2b$10$") || len(external) != 24 ||
		ada["created_at"] != "2024-03-01T09:30:00Z" {
		t.Errorf("the line of ada: %v", ada)
	}
	contains(t, lines[0], `"roles":["editor","user"]`, `"profile":{"full_name":"Ada Lovelace"}`)
	contains(t, lines[1], `"email":"grace@example.com"`, `"roles":["user"]`)
	if strings.Contains(out.String(), "elsewhere@example.com") {
		t.Error("a user of another app is among them")
	}
}

func TestOddUsers(t *testing.T) {
	t.Parallel()
	o := &old{}
	p := o.person(bson.M{
		"_id": "by hand", "email": "x@example.com", "password": "$2b$04$x", "is_active": false, "roles": bson.A{"b", "a", 1}, "role": "a",
		"age": int32(7), "nested": bson.M{"a": 1}, "odd name": "x", "score": 1.5, "news": true,
	}, map[string][]string{"by hand": {"c"}})
	raw, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"email":"x@example.com","password_hash":"$2b$04$x","profile":{"age":7,"news":true,"score":1.5},"status":"disabled","roles":["a","b","c"],"external_id":"by hand"}`
	if string(raw) != want {
		t.Errorf("got  %s\nwant %s", raw, want)
	}
}

func TestRun(t *testing.T) { // not parallel: the environment is everybody's
	server, db := oldDatabase(t)
	t.Setenv("MONGODB_URI", server.URI())
	t.Setenv("MANDATE_SECRET_KEY", strings.Repeat("k", 32))
	ids := filepath.Join(t.TempDir(), "ids.jsonl")
	call := func(args ...string) (string, error) {
		var out bytes.Buffer
		err := run(t.Context(), args, &out, io.Discard)
		return out.String(), err
	}
	for _, bad := range [][]string{{}, {"-from", "old"}, {"-from", "old", "-app", "shop"}, {"-from", "old", "-app", "shop", "-to", "old", "-manifest", "manifest.json"}, {"-nonsense"}} {
		if _, err := call(bad...); err == nil {
			t.Errorf("%v was taken", bad)
		}
	}
	out, err := call("-from", "old", "-app", "shop", "-export")
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(out, "\n"); n != 3 {
		t.Errorf("%d lines were exported", n)
	}
	into := []string{"-from", "old", "-app", "shop", "-to", "new", "-manifest", "manifest.json"}
	if out, err = call(append(into, "-dry-run")...); err != nil {
		t.Fatal(err)
	}
	contains(t, out, "2 would be imported")
	users := server.Client().Database("new").Collection("users")
	if n, _ := users.CountDocuments(t.Context(), bson.M{}); n != 0 {
		t.Errorf("a dry run moved %d users", n)
	}
	for _, want := range []string{"2 imported, 0 there already", "0 imported, 2 there already"} {
		if out, err = call(append(into, "-map", ids)...); err != nil {
			t.Fatal(err)
		}
		contains(t, out, want)
	}
	raw, err := os.ReadFile(ids)
	if err != nil {
		t.Fatal(err)
	}
	contains(t, string(raw), `"new":"usr_`, `"old":"`)
	if n, _ := db.Collection("shop_users").CountDocuments(t.Context(), bson.M{}); n != 6 {
		t.Errorf("the old database has changed: %d users", n)
	}
}
