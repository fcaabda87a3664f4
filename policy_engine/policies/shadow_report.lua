-- Reports that a policy in shadow mode would have refused, in the stream's metadata.
-- These constants are prepended when a policy is compiled:
--   NAMESPACE  of the metadata
--   POLICY     who would have refused

local function report(handle, reason)
  handle:streamInfo():dynamicMetadata():set(NAMESPACE, POLICY, reason)
end
