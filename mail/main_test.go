package mail_test

import (
	"testing"

	"github.com/mandate-auth/mandate/internal/store/storetest"
)

func TestMain(m *testing.M) { storetest.Main(m) }
