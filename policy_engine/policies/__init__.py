"""The policies that come with the gateway, one file each."""
