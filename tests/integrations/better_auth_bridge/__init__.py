"""The session store of fastapi-better-auth-bridge, and requests with the cookies of a TypeScript better-auth."""
