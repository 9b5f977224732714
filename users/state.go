package users

import (
	"context"
	"crypto/subtle"
	"slices"
	"strconv"
	"strings"

	"go.mongodb.org/mongo-driver/bson"

	"github.com/mandate-auth/mandate/tokens/keys"
)

// State is an account at one moment, for what is to happen later on the condition
// that it is still the same: a link that is mailed.
type State struct {
	User User
	// HasPassword says whether a password signs in.
	HasPassword bool
	// Links are the identities that sign in: see [LinkOf].
	Links []string
	// EmailNorm is the normal form of the address, "" for none.
	EmailNorm string
	// Owner counts how often the account has got another owner.
	Owner int64
	// Stamp changes whenever the address, the password or the owner does, and when a
	// guest becomes a person. It tells nothing about them.
	Stamp string
	// stamps are that under every secret key.
	stamps []string
}

// Stamped reports whether the account is what it was when it had the stamp, also where
// that was made under an older secret key.
func (st *State) Stamped(stamp string) bool { return anyOf(st.stamps, stamp) }

// State returns the state of the user with the id. The error is [ErrNotFound].
func (s *Store) State(ctx context.Context, id string) (*State, error) {
	r, err := s.read(ctx, bson.M{"_id": id, "app": s.config.App})
	if err != nil {
		return nil, err
	}
	return s.stateOf(r), nil
}

// StateByEmail returns the state of the user with the address, however it is spelt.
// The error is [ErrNotFound], or a [FieldError] for a text that is no address.
func (s *Store) StateByEmail(ctx context.Context, email string) (*State, error) {
	r, err := s.readByEmail(ctx, email)
	if err != nil {
		return nil, err
	}
	return s.stateOf(r), nil
}

func (s *Store) stateOf(r *record) *State {
	stamps := s.stamps(r)
	return &State{
		User: r.User, HasPassword: r.PasswordHash != "", Links: slices.Clone(r.Links), EmailNorm: r.EmailNorm, Owner: r.Owner,
		Stamp: stamps[0], stamps: stamps,
	}
}

// stamps are the stamps of the account, under every secret key, newest first.
func (s *Store) stamps(r *record) []string {
	// No part holds a NUL.
	return s.config.Keys.Identifiers(keys.OneTime, strings.Join(
		[]string{"stamp", r.ID, string(r.Kind), r.EmailNorm, strconv.FormatBool(r.PasswordHash != ""), strconv.FormatInt(r.PasswordChanges, 10), strconv.FormatInt(r.Owner, 10)}, "\x00"))
}

// stamped reports whether the account is what it was when it had the stamp.
func (s *Store) stamped(r *record, stamp string) bool { return anyOf(s.stamps(r), stamp) }

// anyOf compares in constant time.
func anyOf(stamps []string, stamp string) bool {
	same := 0
	for _, own := range stamps {
		same |= subtle.ConstantTimeCompare([]byte(own), []byte(stamp))
	}
	return same == 1
}

// ProveByMail is the proof of somebody who has received what was mailed when the
// account had the stamp.
func ProveByMail(userID, stamp string) *Proof { return &Proof{userID: userID, stamp: stamp} }

// ProveByLink is the proof of somebody whom another provider has identified: see
// [LinkOf].
func ProveByLink(userID, link string) *Proof { return &Proof{userID: userID, link: link} }

// ProveByService is the word of the service, which has identified the user by itself.
func ProveByService(userID string) *Proof { return &Proof{userID: userID, service: true} }

// ProveByDevice is the proof of the guest or the demo user that the device's id has
// opened: it holds as long as it would open it again.
func ProveByDevice(u *User, deviceID string) *Proof {
	return &Proof{userID: u.ID, device: deviceID, kind: u.Kind}
}

// same is the condition for an account whose owner is the one of the state.
func (s *Store) same(id string, owner int64) bson.M {
	filter := bson.M{"_id": id, "app": s.config.App, "owner": owner}
	if owner == 0 {
		filter["owner"] = bson.M{"$exists": false}
	}
	return filter
}

// settled is same for an account that is not getting another owner at this moment.
func (s *Store) settled(id string, owner int64) bson.M {
	filter := s.same(id, owner)
	filter["handover"] = bson.M{"$exists": false}
	return filter
}
