package users

import (
	"context"
	"errors"
	"fmt"

	"go.mongodb.org/mongo-driver/bson"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/engine/event"
)

// MaxLinks is how many identities of other providers an account can have.
const MaxLinks = 20

// LinkOf names an identity of another provider in an account: the provider, "|" and
// the subject that the provider calls the person by. It is never an address (ASVS
// 6.8.1).
//
// The account's list decides which identities sign in. One write changes it, so an
// account that is taken over by its owner loses all at once, and the last way in is
// never removed twice.
func LinkOf(provider, subject string) string { return provider + "|" + subject }

// LinkedUser is a person to create whom another provider has identified.
type LinkedUser struct {
	// Email is the address if the provider has verified it, otherwise "": what somebody
	// merely claims would keep its owner out.
	Email   string
	Link    string
	Profile map[string]any
	// Guest is as in [NewUser].
	Guest string
}

// CreateLinked creates a person without a password. The error is [ErrEmailTaken], a
// [FieldError] or [ErrNotGuest]. It is [ErrUnverified] where people have to have an
// address that is verified, and this one has none.
func (s *Store) CreateLinked(ctx context.Context, n LinkedUser) (*State, error) {
	if s.config.RequireVerified && n.Email == "" {
		return nil, ErrUnverified
	}
	r := s.newRecord(authz.KindHuman)
	r.Links, r.Profile = []string{n.Link}, n.Profile
	if n.Email != "" {
		norm, err := NormalizeEmail(n.Email)
		if err != nil {
			return nil, err
		}
		r.Email, r.EmailNorm, r.EmailVerified = n.Email, norm, true
	}
	if err := checkProfile(n.Profile); err != nil {
		return nil, err
	}
	if err := s.admitOr(ctx, r, n.Guest, r.EmailVerified); err != nil {
		return nil, err
	}
	s.report(ctx, event.UserRegistered, event.Success, r.ID, "provider")
	return s.stateOf(r), nil
}

// AddLink lets an identity sign in to the account, on the condition that its owner is
// the one of the state. The error is [ErrChanged] or [ErrLinkLimit].
func (s *Store) AddLink(ctx context.Context, st *State, link string) error {
	filter := s.settled(st.User.ID, st.Owner)
	filter["status"] = Active
	// One that is there already is added again, at the limit as well.
	filter["$or"] = bson.A{bson.M{fmt.Sprintf("links.%d", MaxLinks-1): bson.M{"$exists": false}}, bson.M{"links": link}}
	err := s.change(ctx, filter, bson.M{"$addToSet": bson.M{"links": link}})
	if errors.Is(err, ErrChanged) && len(st.Links) >= MaxLinks {
		return ErrLinkLimit
	}
	return err
}

// RemoveLink ends that an identity signs in to the account. mail says that the app
// signs in by mail as well. The error is [ErrNotFound] for an identity that does not
// sign in here and [ErrLastCredential] for the last way in.
func (s *Store) RemoveLink(ctx context.Context, id, link string, mail bool) error {
	ways := bson.A{bson.M{"password_hash": bson.M{"$gt": ""}}, bson.M{"links.1": bson.M{"$exists": true}}}
	if mail {
		ways = append(ways, bson.M{"email_verified": true})
	}
	err := s.change(ctx, bson.M{"_id": id, "app": s.config.App, "links": link, "$or": ways}, bson.M{"$pull": bson.M{"links": link}})
	if !errors.Is(err, ErrChanged) {
		return err
	}
	if _, err := s.read(ctx, bson.M{"_id": id, "app": s.config.App, "links": link}); err != nil {
		return err
	}
	return ErrLastCredential
}
