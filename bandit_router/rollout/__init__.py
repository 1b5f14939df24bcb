"""Who is routed by the bandit and who by what served before: variants, buckets, the flag's file.

Pure rules. The file is read and watched by :mod:`bandit_router.adapters.flags`, and a request gets
its variant from :mod:`bandit_router.assigning`.
"""
