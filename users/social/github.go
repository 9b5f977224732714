package social

import (
	"context"
	"encoding/json"
	"errors"
)

// githubNames is what is where in GitHub's user.
var githubNames = ClaimMap{Name: "name", Picture: "avatar_url"}

// githubUser reads GitHub's user. The subject is the numeric id: a login can be given
// up and taken by somebody else. The address in the user is what the person shows, so
// the one that counts is that of the list which is primary and verified.
func (p *provider) githubUser(ctx context.Context, user map[string]any, access string) (info UserInfo, err error) {
	if _, ok := user["id"].(json.Number); !ok {
		return info, p.refuse(reasonUserInfo, errors.New("the id is not a number"))
	}
	subject, err := subjectOf(user["id"])
	if err != nil {
		return info, p.refuse(reasonUserInfo, err)
	}
	value, _, err := p.set.get(ctx, p.UserInfoURL+"/emails", access)
	if err != nil {
		return info, p.refuse(reasonUserInfo, err)
	}
	list, ok := value.([]any)
	if !ok {
		return info, p.refuse(reasonUserInfo, errors.New("the addresses are not a list"))
	}
	info = p.describe(githubNames, user, nil)
	info.Subject = subject
	if login, _ := user["login"].(string); info.Name == "" {
		info.Name = login
	}
	for _, item := range list {
		entry, _ := item.(map[string]any)
		if entry["primary"] == any(true) && entry["verified"] == any(true) {
			info.Email = validEmail(entry["email"])
			info.EmailVerified = info.Email != ""
			break
		}
	}
	return info, nil
}
