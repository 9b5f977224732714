package main

import (
	"context"
	"crypto/rand"
	_ "embed"
	"fmt"
	"io"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/bson/primitive"
	"go.mongodb.org/mongo-driver/mongo"
	"golang.org/x/crypto/bcrypt"

	"github.com/mandate-auth/mandate/engine"
	"github.com/mandate-auth/mandate/localmongo"
	"github.com/mandate-auth/mandate/manifest"
	"github.com/mandate-auth/mandate/users"
)

//go:embed manifest.json
var shopManifest []byte

// oldPassword is what ada chose back then.
const oldPassword = "correct horse"

// show moves an old database that it has made, in memory.
func show(ctx context.Context, out io.Writer) error {
	server, err := localmongo.Start(ctx, nil)
	if err != nil {
		return err
	}
	defer server.Close(context.WithoutCancel(ctx))
	return showIn(ctx, server.Client().Database("old"), server.Client().Database("shop_mandate"), out)
}

func showIn(ctx context.Context, oldDB, newDB *mongo.Database, out io.Writer) error {
	if err := seed(ctx, oldDB); err != nil {
		return err
	}
	eng, err := engine.New(ctx, newDB, &engine.Options{SecretKeys: []engine.Secret{engine.NewSecret(rand.Text() + rand.Text())}})
	if err != nil {
		return err
	}
	defer eng.Close(context.WithoutCancel(ctx))
	m, err := manifest.Parse(shopManifest, nil)
	if err != nil {
		return err
	}
	app, err := eng.Load(ctx, m)
	if err != nil {
		return err
	}
	from := &old{db: oldDB, slug: "shop", users: "shop_users"}
	for _, title := range []string{"The move:", "The same again:"} {
		fmt.Fprintln(out, title)
		if err := move(ctx, from, app, users.ImportOptions{}, out); err != nil {
			return err
		}
	}
	before, err := hashOf(ctx, newDB, "ada@example.com")
	if err != nil {
		return err
	}
	grant, err := app.Login(ctx, engine.Credentials{Email: "ada@example.com", Password: oldPassword}, engine.Device{}, false)
	if err != nil {
		return err
	}
	after, err := hashOf(ctx, newDB, "ada@example.com")
	if err != nil {
		return err
	}
	roles, err := app.Authz().Roles(ctx, grant.User.ID)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "ada signs in with the old password and has the roles %v\nher hash was  %.7s…\nand is now    %.20s…\n", roles, before, after)
	return err
}

// seed makes what mdb-engine would have left: users with bcrypt hashes as bytes and as
// text, a guest, a demo user, somebody whose hash nobody can verify, and rules.
func seed(ctx context.Context, db *mongo.Database) error {
	hash, err := bcrypt.GenerateFromPassword([]byte(oldPassword), 10)
	if err != nil {
		return err
	}
	python := []byte("$2b$" + string(hash[4:])) // as Python's bcrypt writes it
	at := time.Date(2024, 3, 1, 9, 30, 0, 0, time.UTC)
	if _, err := db.Collection("shop_users").InsertMany(ctx, []any{
		bson.M{"app_id": "shop", "email": "ada@example.com", "password_hash": primitive.Binary{Data: python}, "role": "user", "date_created": at, "full_name": "Ada Lovelace"},
		bson.M{"app_id": "shop", "email": "grace@example.com", "password_hash": string(python), "role": "user", "date_created": at.Add(time.Hour)},
		bson.M{"app_id": "shop", "email": "lost@example.com", "password_hash": "plain text", "role": "user", "date_created": at},
		bson.M{"app_id": "shop", "email": "guest_0a1b2c3d", "role": "anonymous", "is_anonymous": true, "date_created": at},
		bson.M{"app_id": "shop", "email": "demo@example.com", "password_hash": string(python), "role": "user", "is_demo": true, "date_created": at},
		bson.M{"app_id": "blog", "email": "elsewhere@example.com", "password_hash": string(python), "role": "user"},
	}); err != nil {
		return err
	}
	_, err = db.Collection("casbin_policies").InsertMany(ctx, []any{
		bson.M{"ptype": "p", "v0": "user", "v1": "orders", "v2": "read"},
		bson.M{"ptype": "p", "v0": "editor", "v1": "orders", "v2": "write"},
		bson.M{"ptype": "p", "v0": "grace@example.com", "v1": "reports", "v2": "read"},
		bson.M{"ptype": "g", "v0": "ada@example.com", "v1": "editor"},
	})
	return err
}

func hashOf(ctx context.Context, db *mongo.Database, email string) (string, error) {
	var doc struct {
		Hash string `bson:"password_hash"`
	}
	err := db.Collection("users").FindOne(ctx, bson.M{"app": "shop", "email": email}).Decode(&doc)
	return doc.Hash, err
}
