-- The filter's context as a table of this Lua state, which serves one set of subscriptions only:
-- asking the context itself costs time with every subscription in it, for every request.
-- It maps `t:` + digest of a token and `a:` + application, as authenticating policies write it, to
-- the subscription's id, the id of a limited plan and the application, separated by tabs.

local subscriptions

local function subscription_of(handle, known)
  if subscriptions == nil then
    subscriptions = {}
    for credential, found in pairs(handle:filterContext()) do
      subscriptions[credential] = found
    end
  end
  return known and subscriptions[known]
end
