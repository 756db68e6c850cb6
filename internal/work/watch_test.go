package work

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestAWatchRunsOnceAndEndsBeforeItsLifeDoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLife(nil)
		var told log
		watch := func(name string) *Watch {
			return NewWatch(name, func(ctx context.Context) {
				told.add("%s begins", name)
				<-ctx.Done()
				told.add("%s: %v", name, context.Cause(ctx))
			})
		}
		first, second, never, late := watch("first"), watch("second"), watch("never"), watch("late")
		first.Start(l)
		first.Start(l)
		synctest.Wait()
		second.Start(l)
		synctest.Wait()
		assert.Equal(t, []string{"first begins", "second begins"}, told.all())
		first.Stop()
		first.Stop()
		synctest.Wait()
		assert.Equal(t, "first: cut by shutdown", told.all()[2])
		first.Start(l)
		never.Stop()
		never.Start(l)
		synctest.Wait()
		assert.Len(t, told.all(), 3, "what has ended does not begin")
		require.NoError(t, Shutdown(t.Context(), l))
		assert.Equal(t, "second: cut by shutdown", told.all()[3], "with its life")
		late.Start(l)
		synctest.Wait()
		assert.Len(t, told.all(), 4)
	})
}
